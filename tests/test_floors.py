"""The structure: a file imports from lower floors only, and nothing heavy when imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import notebook_serve

PACKAGE = Path(notebook_serve.__file__).parent

#: each file, and the floor it stands on
FLOORS = {
    "errors": -1,
    "option_hints": 0,
    "signatures": 0,
    "annotations": 0,
    "tracebacks": 1,
    "checks": 1,
    "fixed_attributes": 2,
    "policy_kinds": 1,
    "interpreter": 0,
    "torch_settings": 0,
    "jobs": 0,
    "display": 0,
    "histogram": 0,
    "dashboard": 0,
    "drawing": 0,
    "dashboard_picture": 1,
    "examples": 3,
    "traffic": 1,
    "waiting": 1,
    "sounds": 0,
    "encoding": 1,
    "parameters": 1,
    "tasks": 2,
    "copies": 2,
    "media": 2,
    "recordings": 2,
    "single": 3,
    "stacked": 3,
    "collation": 1,
    "departure": 1,
    "isolation": 0,
    "each": 1,
    "batch_functions": 1,
    "batch_outputs": 0,
    "encoder_model": 3,
    "unservable": 0,
    "mailbox": 1,
    "memory": 1,
    "breaker": 1,
    "failures": 1,
    "headers": 1,
    "deadlines": 1,
    "desk": 1,
    "sockets": 1,
    "stats": 2,
    "exchange": 1,
    "log": 2,
    "extras": 1,
    "pickling": 2,
    "channel": 3,
    "parcel": 3,
    "raised": 3,
    "executors": 4,
    "hearing": 4,
    "process": 5,
    "devices": 5,
    "clients": 1,
    "generation": 1,
    "pooling": 1,
    "noise": 1,
    "cost": 2,
    "figures": 2,
    "history": 1,
    "policies": 2,
    "models": 2,
    "law": 3,
    "torch_threads": 3,
    "overheads": 3,
    "report": 3,
    "pivot": 4,
    "scheduler": 3,
    "pipelines": 4,
    "backlog": 4,
    "progress": 4,
    "learning": 4,
    "calibration": 5,
    "testing": 5,
    "worker": 4,
    "keeper": 6,
    "child": 6,
    "placement": 7,
    "parsing": 5,
    "simulator": 5,
    "engine": 5,
    "together": 5,
    "writing": 6,
    "engines": 6,
    "openapi": 6,
    "capacity": 6,
    "replay": 6,
    "live": 6,
    "lives": 7,
    "metrics": 7,
    "page": 8,
    "widget": 8,
    "protocols": 5,
    "bodies": 5,
    "replies": 5,
    "listener": 6,
    "asking": 7,
    "streaming": 8,
    "access": 7,
    "accesslog": 7,
    "tracing": 7,
    "traced": 8,
    "inference_api": 9,
    "openai_api": 9,
    "app": 10,
    "endpoint": 10,
    "server": 12,
    "demo": 10,
    "model_names": 10,
    "pipeline_builder": 11,
    "notebook": 10,
    "targets": 12,
    "foreground": 13,
    "loadtest": 13,
    "tour": 15,
    "compare": 14,
    "__init__": 16,
    "__main__": 17,
}


def imports(path: Path) -> set[str]:
    """The files of the package that one of them imports, type-checking imports left out."""
    found = set()
    for node in ast.walk(_without_type_checking(ast.parse(path.read_text("utf-8")))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return {name or "" for name in found}


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def test_every_file_has_a_floor() -> None:
    """The table names the files that there are, and no others."""
    files = {path.stem for path in PACKAGE.glob("*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert files | folders == set(FLOORS)


@pytest.mark.parametrize("name", sorted(path.stem for path in PACKAGE.glob("*.py")))
def test_a_file_imports_from_lower_floors_only(name: str) -> None:
    """So there is no cycle, and a request falls from top to bottom."""
    used = imports(PACKAGE / f"{name}.py") & set(FLOORS)
    wrong = {other for other in used if FLOORS[other] >= FLOORS[name]}
    assert not wrong, f"{name} (floor {FLOORS[name]}) imports {wrong}"


def test_nothing_below_the_worker_reads_a_clock() -> None:
    """A policy, and all that decides, learns the time from its driver."""
    for name, floor in FLOORS.items():
        if floor < FLOORS["worker"] and name not in ("deadlines", "desk", "demo", "testing"):
            text = (PACKAGE / f"{name}.py").read_text("utf-8")
            assert "import time" not in text, name


def test_importing_loads_neither_torch_nor_transformers() -> None:
    """So scripts and simulations start at once; a web framework is loaded by the first server."""
    code = "import sys, notebook_serve; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformers", "numpy", "starlette", "uvicorn", "httpx"}


def test_exports_are_sorted_and_documented() -> None:
    """`__all__` is sorted, every name in it exists and has a docstring of its own."""
    names = notebook_serve.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(notebook_serve, name).__doc__, name
