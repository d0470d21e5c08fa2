"""How long a busy cell keeps the interpreter from the server's threads."""

from __future__ import annotations

import sys
import threading

#: seconds after which a thread that computes in Python gives the interpreter to one that waits.
#: Python's own 5 ms are waited for at every step of a request: a tokenizer or a socket gives the
#: interpreter up, and must wait for it again.
SHORT = 0.0002

_lock = threading.Lock()
_holders: set[int] = set()
_usual = 0.0


def hold(who: object) -> None:
    """Let threads take turns sooner, until all who asked for it have let go."""
    global _usual
    with _lock:
        if not _holders:
            _usual = sys.getswitchinterval()
            sys.setswitchinterval(min(SHORT, _usual))
        _holders.add(id(who))


def let_go(who: object) -> None:
    """`who` does not need it any more, if it ever did; the last sets what was before."""
    with _lock:
        if id(who) in _holders:
            _holders.discard(id(who))
            if not _holders:
                sys.setswitchinterval(_usual)
