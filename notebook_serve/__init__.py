"""Serve a transformers pipeline from a notebook, and see what queueing and batching do to it."""

from __future__ import annotations

from . import traffic
from .accesslog import JsonLines, access_log
from .calibration import calibrate
from .capacity import Capacity, Plan, capacity, plan
from .compare import Comparison, compare
from .cost import CostModel
from .each import each
from .endpoint import Endpoint, Endpoints
from .errors import (
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    CircuitOpen,
    DeadlineExceeded,
    Forbidden,
    FrozenPolicy,
    InvalidInput,
    LoaderFailed,
    ModelFailed,
    NoSuchModel,
    NotAcceptable,
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
    UnknownAttribute,
    UnsupportedMediaType,
    WorkerDead,
    WrongCall,
)
from .jobs import (
    Batch,
    BatchRecord,
    Decision,
    ErrorRecord,
    Job,
    PolicyChange,
    RequestRecord,
)
from .learning import Adaptive, CostAware
from .loadtest import aload_test, load_test
from .models import ServedModel
from .noise import Noise
from .parsing import parse_policy
from .policies import (
    CoDel,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Window,
)
from .replay import replay
from .report import Report
from .scheduler import Scheduler
from .server import Server, serve, servers, stop_all
from .simulator import simulate
from .stats import Distribution, LastError, Queue, Stats, WorkerStats
from .waiting import by_length, mates

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "BadRequest",
    "Batch",
    "BatchRecord",
    "BodyTooLarge",
    "BodyTooSlow",
    "Capacity",
    "CircuitOpen",
    "CoDel",
    "Comparison",
    "CostAware",
    "CostModel",
    "DeadlineExceeded",
    "Decision",
    "Distribution",
    "Endpoint",
    "Endpoints",
    "ErrorRecord",
    "Forbidden",
    "FrozenPolicy",
    "Greedy",
    "InvalidInput",
    "Job",
    "JsonLines",
    "LastError",
    "LengthAware",
    "LoaderFailed",
    "ModelFailed",
    "NoBatching",
    "NoSuchModel",
    "Noise",
    "NotAcceptable",
    "NotReady",
    "OptionError",
    "Overloaded",
    "Plan",
    "Policy",
    "PolicyChange",
    "PolicyError",
    "PortTaken",
    "Queue",
    "QueueFull",
    "Report",
    "RequestError",
    "RequestRecord",
    "ResettingWindow",
    "Scheduler",
    "ServeError",
    "ServedModel",
    "Server",
    "StartError",
    "Stats",
    "Stopping",
    "Unauthorized",
    "Unavailable",
    "UnknownAttribute",
    "UnsupportedMediaType",
    "Window",
    "WorkerDead",
    "WorkerStats",
    "WrongCall",
    "access_log",
    "aload_test",
    "by_length",
    "calibrate",
    "capacity",
    "compare",
    "each",
    "load_test",
    "mates",
    "parse_policy",
    "plan",
    "replay",
    "serve",
    "servers",
    "simulate",
    "stop_all",
    "traffic",
]
