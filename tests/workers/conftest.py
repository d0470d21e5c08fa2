"""Fixtures of all tests of workers: no process is left behind, and torch is as on two cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._dynamo.utils as dynamo

from notebook_serve import servers
from notebook_serve.workers import torch_settings
from notebook_serve.workers.torch_settings import NUMBER, WAITING

from ..helpers.process_models import children


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    """Fail a test that leaves a process."""
    before = {child.pid for child in children()}
    yield
    for server in servers():
        server.stop(drain=False)
    assert [child for child in children() if child.pid not in before] == []


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch have two threads, as on two cores, and no variables of the user."""
    for name in (*NUMBER, *WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch_settings, "default_thread_counts", lambda: {2})
    monkeypatch.setattr(dynamo, "counters", {})  # another test may have compiled a model
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
