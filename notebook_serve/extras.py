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
        if error.name != package:  # it is there, and broken: its own error says more
            raise
        raise MissingExtra(
            f"{package} is not installed: pip install 'notebook-serve[{extra}]'"
        ) from error
