"""Optional dependencies: import one, or name the command that installs it."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import ServeError


class MissingExtra(ServeError, ImportError):
    """An optional dependency is not installed; the message has the command that installs it."""

    status = 501


def require(module: str, extra: str) -> Any:
    """Import `module`, a dependency of `extra`. Raises `MissingExtra` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # Another name is that of its own dependency: it is installed and broken, and its error says
        # more. The second name covers namespace packages.
        if error.name not in (package, module):
            raise
        raise MissingExtra(
            f"{package} is not installed: pip install 'notebook-serve[{extra}]'"
        ) from error
