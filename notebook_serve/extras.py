"""What is installed only if asked for: a missing one is named with the command that installs it."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import ServeError


class MissingExtra(ServeError, ImportError):
    """Something optional is not installed; the message is the command that installs it."""

    status = 501


def require(module: str, extra: str) -> Any:
    """Import `module`, which the extra `extra` brings; raises `MissingExtra` where it is not."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # Another name is of something that it needs: it is there, and broken, and says more itself.
        # The second is where the package's name is one that several share.
        if error.name not in (package, module):
            raise
        raise MissingExtra(
            f"{package} is not installed: pip install 'notebook-serve[{extra}]'"
        ) from error
