"""Serve a transformers pipeline from a notebook, and see the effect of queueing and batching."""

from __future__ import annotations

from . import traffic
from ._version import __version__ as __version__
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
from .http.telemetry.access_log import JsonLines, access_log
from .lab.calibration import calibrate
from .lab.compare import Comparison, compare
from .lab.load_test import aload_test, load_test
from .models.base import ServedModel
from .models.functions.each import each
from .queueing.cost_model import CostModel
from .queueing.jobs import Batch, Decision, Job
from .queueing.learned_policies import Adaptive, CostAware
from .queueing.noise import Noise
from .queueing.policies import (
    CoDel,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Window,
)
from .queueing.policy_parser import parse_policy
from .queueing.scheduler import Scheduler
from .queueing.stats import Distribution, LastError, Queue, Stats, WorkerStats
from .queueing.waiting_line import by_length, mates
from .records import BatchRecord, ErrorRecord, PolicyChange, RequestRecord
from .server import Server, serve, servers, stop_all
from .simulation.capacity import Capacity, Plan, capacity, plan
from .simulation.replay import replay
from .simulation.report import Report
from .simulation.simulator import simulate

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
