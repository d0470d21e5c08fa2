"""Signatures of functions, also where an annotation names what is not imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature; raises `TypeError` or `ValueError` where there is none.

    From Python 3.14 on annotations are evaluated here, and a name that only a type checker imports
    would raise; so those that cannot be are left as references.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)
