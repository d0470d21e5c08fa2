"""Serve a transformers pipeline from a notebook, and see what queueing and batching do to it."""

from __future__ import annotations

from .errors import (
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    CircuitOpen,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    LoaderFailed,
    ModelFailed,
    NotReady,
    OptionError,
    Overloaded,
    PolicyError,
    PortTaken,
    QueueFull,
    RequestError,
    ServeError,
    StartError,
    Stopping,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    WorkerDead,
)
from .jobs import Batch, BatchRecord, Decision, Job, RequestRecord
from .policies import (
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Window,
    parse_policy,
)
from .scheduler import Scheduler
from .server import Server, serve, servers, stop_all
from .stats import Distribution, Queue, Stats
from .waiting import by_length, mates

__version__ = "0.1.0"

__all__ = [
    "BadRequest",
    "Batch",
    "BatchRecord",
    "BodyTooLarge",
    "BodyTooSlow",
    "CircuitOpen",
    "DeadlineExceeded",
    "Decision",
    "Distribution",
    "Forbidden",
    "Greedy",
    "InvalidInput",
    "Job",
    "LengthAware",
    "LoaderFailed",
    "ModelFailed",
    "NoBatching",
    "NotReady",
    "OptionError",
    "Overloaded",
    "Policy",
    "PolicyError",
    "PortTaken",
    "Queue",
    "QueueFull",
    "RequestError",
    "RequestRecord",
    "ResettingWindow",
    "Scheduler",
    "ServeError",
    "Server",
    "StartError",
    "Stats",
    "Stopping",
    "Unauthorized",
    "Unavailable",
    "UnsupportedMediaType",
    "Window",
    "WorkerDead",
    "by_length",
    "mates",
    "parse_policy",
    "serve",
    "servers",
    "stop_all",
]
