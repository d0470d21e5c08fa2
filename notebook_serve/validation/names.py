"""Checks of the names of servers and models."""

from __future__ import annotations

import re
from typing import Any

from ..errors import OptionError
from .option_hints import short

#: form of a model's name, which is part of a path
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: most letters of a server's name
LONGEST_NAME = 100


def check_server_name(name: Any) -> None:
    """Raise `OptionError` for a name that does not fit into a path or a line of a log."""
    if not isinstance(name, str) or not name.strip():
        raise OptionError(f"name must be a text that is not empty, got {name!r}")
    wrong = [letter for letter in name if letter in "/\\?#%" or not letter.isprintable()]
    if wrong:
        raise OptionError(
            f"name must not contain {wrong[0]!r}, because it is part of an address; got {name!r}"
        )
    if len(name) > LONGEST_NAME:
        raise OptionError(f"name must have at most {LONGEST_NAME} letters, got {len(name)}")


def check_model_name(name: Any) -> None:
    """Raise `OptionError` for a name that `add` cannot put into a path."""
    if callable(name):
        raise OptionError(f"the name comes first; write server.add('more', {short(name)})")
    if not isinstance(name, str) or not MODEL_NAME.fullmatch(name):
        raise OptionError(
            f"a model's name must be letters, digits, dots, dashes and underscores, got {name!r}"
        )
