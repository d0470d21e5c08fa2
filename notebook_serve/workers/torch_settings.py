"""The threads of torch: how many a thread uses, and how they wait in a worker process."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

#: held while the number of later threads differs, for an instant, from what it was
SETTING = threading.RLock()

#: variables by which a user sets the number of threads, and how they wait for each other
NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
#: Threads in a process of ours spin for microseconds and then sleep, instead of spinning for 10 to
#: 200 ms. GNU's runtime reads both variables, Intel's and LLVM's the first.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
#: how deep a model is searched for modules of torch: a pipeline in a function in two wrappers
DEPTH = 6
#: where Linux says which logical cores are one physical core
CORES = Path("/sys/devices/system/cpu")


def torch_is_loaded() -> bool:
    """Return True if torch has been imported, and not only begun to be."""
    torch = sys.modules.get("torch")
    spec = getattr(torch, "__spec__", None)
    return torch is not None and not getattr(spec, "_initializing", False)


def torch_number() -> int:
    """Return the number of threads that torch uses on the calling thread."""
    return int(sys.modules["torch"].get_num_threads())


def use_threads(number: int) -> None:
    """Let torch use so many threads on the calling thread, and on no other.

    `torch.set_num_threads` acts on the calling thread, and on threads that use torch for the first
    time later. A short thread sets the number of the later ones back.
    """
    set_number = sys.modules["torch"].set_num_threads
    with SETTING:
        later = _on_new_thread(torch_number)
        set_number(number)
        if later is not None and later != number:
            _on_new_thread(functools.partial(set_number, later))


def _on_new_thread(function: Callable[[], T]) -> T | None:
    """Return what `function` returns on a new thread, or None if none can be started any more."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter ends
        return None
    thread.join()
    return found[0] if found else None


def is_chosen() -> bool:
    """Return True if the user has chosen the number of torch's threads on the calling thread."""
    if any(name in os.environ for name in NUMBER):
        return True
    return torch_is_loaded() and torch_number() not in usual_numbers()


def usual_numbers() -> set[int]:
    """Return the numbers of threads that torch may take by itself: logical or physical cores."""
    logical = cores()
    names = [CORES / f"cpu{core}" / "topology" / "thread_siblings_list" for core in logical]
    try:
        physical = len({name.read_text("ascii") for name in names})
    except OSError:
        physical = max(1, len(logical) // 2)
    return {len(logical), physical}


def cores() -> list[int]:
    """Return the logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def environment(threads: int | None, workers: int) -> dict[str, str]:
    """Return the variables for each of so many worker processes; the user's own stay.

    A process has `threads` threads of torch, or its share of those that torch has here.
    """
    waiting = {} if any(name in os.environ for name in WAITING) else PASSIVE
    if threads is not None:
        return {**waiting, "OMP_NUM_THREADS": str(threads)}
    given, loaded = os.environ.get("OMP_NUM_THREADS"), torch_is_loaded()
    number = torch_number() if loaded else len(cores())
    if given is not None and (not loaded or given == str(number)):
        return dict(waiting)
    if not loaded and workers == 1:
        return dict(waiting)
    return {**waiting, "OMP_NUM_THREADS": str(max(1, number // workers))}


# -- models of torch ------------------------------------------------------------------------


def has_compiled() -> bool:
    """Return True if torch has compiled anything in this process."""
    utils = sys.modules.get("torch._dynamo.utils")
    return bool(getattr(utils, "counters", None))


def computes_on_cpu(model: Any) -> bool:
    """Return True if `model` is seen to use torch, and all that is seen of it is on the CPU."""
    try:
        found = list(_torch_parts(model, DEPTH, set()))
    except Exception:  # whatever a proxy raises that is only looked at
        return False
    return bool(found) and all(_device(part) == "cpu" for part in found)


def _torch_parts(thing: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """Yield the modules of torch that `thing` is or refers to, and torch itself."""
    torch = sys.modules["torch"]
    if thing is torch or isinstance(thing, torch.nn.Module):
        yield thing
    elif depth and id(thing) not in seen:
        seen.add(id(thing))
        for part in _parts(thing):
            yield from _torch_parts(part, depth - 1, seen)


def _parts(thing: Any) -> Iterator[Any]:
    """Yield what an object holds, or a function names."""
    if isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, FunctionType):
        named = thing.__globals__
        yield from (named[name] for name in thing.__code__.co_names if name in named)
        yield from (cell.cell_contents for cell in thing.__closure__ or () if _is_full(cell))
    elif not isinstance(thing, (ModuleType, type)):
        yield from getattr(thing, "__dict__", {}).values()


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _device(part: Any) -> str:
    """Return the kind of device of a module's weights; CPU if it has none."""
    weights = getattr(part, "parameters", None)
    weight = None if weights is None else next(iter(weights()), None)
    return "cpu" if weight is None else str(weight.device.type)
