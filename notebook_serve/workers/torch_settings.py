"""Settings of torch: the number of its threads, and how they wait in a worker process."""

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

#: held while the number for later threads is changed for an instant
SETTING = threading.RLock()

#: variables with which a user sets the number of threads, and how they wait for each other
NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
#: settings that let threads of a worker process spin for microseconds and then sleep, instead of
#: spinning for 10 to 200 ms. GNU's runtime reads both variables, Intel's and LLVM's the first.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
#: depth to which a model is searched for modules of torch: a pipeline in a function in two wrappers
DEPTH = 6
#: folder in which Linux lists the logical cores of each physical core
CORES = Path("/sys/devices/system/cpu")


def torch_is_loaded() -> bool:
    """Return True if the import of torch is complete."""
    torch = sys.modules.get("torch")
    spec = getattr(torch, "__spec__", None)
    return torch is not None and not getattr(spec, "_initializing", False)


def get_thread_count() -> int:
    """Return the number of threads that torch uses on the calling thread."""
    return int(sys.modules["torch"].get_num_threads())


def set_thread_count(number: int) -> None:
    """Set the number of torch's threads on the calling thread only.

    `torch.set_num_threads` acts on the calling thread, and on threads that use torch for the first
    time later. A short-lived thread restores the number for those. The calling thread must have
    used torch before, as by `get_thread_count`: its first use sets the number of later threads.
    """
    set_number = sys.modules["torch"].set_num_threads
    with SETTING:
        later = _call_on_new_thread(get_thread_count)
        set_number(number)
        if later is not None and later != number:
            _call_on_new_thread(functools.partial(set_number, later))


def _call_on_new_thread(function: Callable[[], T]) -> T | None:
    """Call `function` on a new thread; return its result, or None if no thread can be started."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is shutting down
        return None
    thread.join()
    return found[0] if found else None


def is_chosen_by_user() -> bool:
    """Return True if the user has chosen the number of torch's threads on the calling thread."""
    if any(name in os.environ for name in NUMBER):
        return True
    return torch_is_loaded() and get_thread_count() not in default_thread_counts()


def default_thread_counts() -> set[int]:
    """Return the default numbers of torch's threads: those of logical and of physical cores."""
    logical = list_cores()
    names = [CORES / f"cpu{core}" / "topology" / "thread_siblings_list" for core in logical]
    try:
        physical = len({name.read_text("ascii") for name in names})
    except OSError:
        physical = max(1, len(logical) // 2)
    return {len(logical), physical}


def list_cores() -> list[int]:
    """Return the logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def process_environment(threads: int | None, workers: int) -> dict[str, str]:
    """Return the variables to set for each of so many worker processes, except the user's own.

    A process has `threads` threads of torch, or its share of those that torch has here.
    """
    waiting = {} if any(name in os.environ for name in WAITING) else PASSIVE
    if threads is not None:
        return {**waiting, "OMP_NUM_THREADS": str(threads)}
    given, loaded = os.environ.get("OMP_NUM_THREADS"), torch_is_loaded()
    number = get_thread_count() if loaded else len(list_cores())
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
    """Return True if modules of torch are found in `model`, and all of them are on the CPU."""
    try:
        found = list(_find_torch(model, DEPTH, set()))
    except Exception:  # a proxy may raise anything when it is inspected
        return False
    return bool(found) and all(_device(part) == "cpu" for part in found)


def _find_torch(thing: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """Yield the modules of torch that `thing` is or refers to, and torch itself."""
    torch = sys.modules["torch"]
    if thing is torch or isinstance(thing, torch.nn.Module):
        yield thing
    elif depth and id(thing) not in seen:
        seen.add(id(thing))
        for part in _parts(thing):
            yield from _find_torch(part, depth - 1, seen)


def _parts(thing: Any) -> Iterator[Any]:
    """Yield the objects that an object holds or a function refers to."""
    if isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, FunctionType):
        named = thing.__globals__
        yield from (named[name] for name in thing.__code__.co_names if name in named)
        yield from (cell.cell_contents for cell in thing.__closure__ or () if _has_value(cell))
    elif not isinstance(thing, (ModuleType, type)):
        yield from getattr(thing, "__dict__", {}).values()


def _has_value(cell: Any) -> bool:
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
