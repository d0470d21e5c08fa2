"""The command line, as ``python -m notebook_serve``."""

from __future__ import annotations

import sys

from .cli.arguments import main

if __name__ == "__main__":
    sys.exit(main())
