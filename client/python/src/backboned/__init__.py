"""Client of Backboned, a server that hosts the backbones of continual learners.

>>> import backboned
>>> with backboned.local_server() as server:
...     net = server.create("seq-mnist", seed=0)
...     out, feats = net(x, returnt="both")

With torch, `net` is a `RemoteBackbone`: a `torch.nn.Module` whose forward and backward
run in the server. Without, it is an `Instance`, which speaks NumPy arrays.
"""

import importlib
from typing import TYPE_CHECKING, Any

# First: it sets up grpc for forks before grpc is loaded.
from backboned.channel import DEFAULT_TIMEOUT_S

# isort: split
from backboned.backoff import Waiting, print_waiting
from backboned.connecting import connect, local_server
from backboned.describe import (
    Architecture,
    Batches,
    Benchmark,
    Device,
    FeatureCache,
    InstanceInfo,
    Normalization,
    ServerInfo,
    Usage,
)
from backboned.errors import (
    Aborted,
    AlreadyExists,
    BackbonedError,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MalformedAnswer,
    NotFound,
    Refused,
    ResourceExhausted,
    ServerRestarted,
    ServerStartError,
    StaleVersion,
    StepNotMade,
    Unavailable,
)
from backboned.instance import Instance
from backboned.layout import Layout, Version
from backboned.norms import BatchNorm
from backboned.optimizer import (
    GroupSettings,
    Optimizer,
    OptimizerState,
    ParameterGroup,
    StepOptions,
    Stepped,
)
from backboned.pipeline import StepInFlight
from backboned.results import Backward, Extracted, Forward, Grads
from backboned.server import Server
from backboned.training import (
    CrossEntropy,
    KlDivergence,
    MeanSquaredError,
    TrainStep,
)
from backboned.version import __version__ as __version__

if TYPE_CHECKING:
    from backboned.nn import RemoteBackbone as RemoteBackbone

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "Aborted",
    "AlreadyExists",
    "Architecture",
    "BackbonedError",
    "Backward",
    "BatchNorm",
    "Batches",
    "Benchmark",
    "Cancelled",
    "CrossEntropy",
    "DeadlineExceeded",
    "Device",
    "Extracted",
    "FailedPrecondition",
    "FeatureCache",
    "Forward",
    "Grads",
    "GroupSettings",
    "Instance",
    "InstanceInfo",
    "Internal",
    "InvalidArgument",
    "KlDivergence",
    "Layout",
    "MalformedAnswer",
    "MeanSquaredError",
    "Normalization",
    "NotFound",
    "Optimizer",
    "OptimizerState",
    "ParameterGroup",
    "Refused",
    "ResourceExhausted",
    "Server",
    "ServerInfo",
    "ServerRestarted",
    "ServerStartError",
    "StaleVersion",
    "StepInFlight",
    "StepNotMade",
    "StepOptions",
    "Stepped",
    "TrainStep",
    "Unavailable",
    "Usage",
    "Version",
    "Waiting",
    "connect",
    "local_server",
    "print_waiting",
]


# What needs torch, which need not be there: not for `from backboned import *`.
_WITH_TORCH = ("RemoteBackbone", "optim")


def __dir__() -> list[str]:
    """List what is public, also what is loaded when it is asked for."""
    return sorted({*globals(), *_WITH_TORCH})


def __getattr__(name: str) -> Any:
    """Load torch only for what needs it."""
    if name == "optim":
        return importlib.import_module("backboned.optim")
    if name == "RemoteBackbone":
        from backboned.nn import RemoteBackbone

        return RemoteBackbone
    raise AttributeError(f"module 'backboned' has no attribute {name!r}")
