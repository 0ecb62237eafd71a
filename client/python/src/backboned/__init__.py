"""Client of Backboned, a server that hosts the backbones of continual learners.

>>> import backboned
>>> with backboned.local_server() as server:
...     net = server.create("seq-mnist", seed=0)
...     out, feats = net(x, returnt="both")

With torch, `net` is a `RemoteBackbone`: a `torch.nn.Module` whose forward and backward
run in the server. Without, it is an `Instance`, which speaks NumPy arrays.

`backboned.errors` has what calls raise, `backboned.types` what they take and give, and
`backboned.optim` optimizers that run in the server.
"""

import importlib
import os
import warnings
from typing import TYPE_CHECKING, Any

# OpenMP reads this as torch loads it. Its idle threads would spin for milliseconds, on
# cores where a server of this machine computes; so they do for some 0.13 ms.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# First: it sets up grpc for forks before grpc is loaded.
from backboned.transport import forks as _forks  # noqa: F401

# isort: split
from backboned import errors, types
from backboned.errors import BackbonedError
from backboned.instance import Instance
from backboned.losses import CrossEntropy, KlDivergence, MeanSquaredError
from backboned.server import Server, connect, local_server
from backboned.steps import StepInFlight
from backboned.transport.channel import DEFAULT_TIMEOUT_S
from backboned.transport.retries import print_waiting
from backboned.version import __version__ as __version__

if TYPE_CHECKING:
    from backboned import optim as optim
    from backboned.nn import RemoteBackbone as RemoteBackbone

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "BackbonedError",
    "CrossEntropy",
    "Instance",
    "KlDivergence",
    "MeanSquaredError",
    "Server",
    "StepInFlight",
    "connect",
    "errors",
    "local_server",
    "print_waiting",
    "types",
]

# These need torch, which need not be there: not for `from backboned import *`.
_WITH_TORCH = ("RemoteBackbone", "optim")


def __dir__() -> list[str]:
    """List what is public, also what is loaded when it is asked for."""
    return sorted({*globals(), *_WITH_TORCH})


def __getattr__(name: str) -> Any:
    """Load torch only for what needs it, and find names where they were before 0.3."""
    if name == "optim":
        return importlib.import_module("backboned.optim")
    if name == "RemoteBackbone":
        from backboned.nn import RemoteBackbone

        return RemoteBackbone
    for module in (errors, types):
        if name in module.__all__:
            warnings.warn(
                f"backboned.{name} is {module.__name__}.{name} now; the old name goes "
                "with the next release",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(module, name)
    raise AttributeError(f"module 'backboned' has no attribute {name!r}")
