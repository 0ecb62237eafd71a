"""A training server of torch.distributed.rpc, and what its clients call.

Usage: rpc_server.py THREADS SOCKET

Its clients come and go (`world_size=None`); SOCKET is not used.
"""

import os
import socket
import sys
import threading
from typing import Any

import torch
from model import Training
from torch.distributed import rpc

SERVER = "server"
_trainings: dict[int, Training] = {}


def begin(spec: dict[str, Any]) -> int:
    """Make a network in the server."""
    key = len(_trainings)
    _trainings[key] = Training(spec)
    return key


def step(key: int, x: torch.Tensor, y: torch.Tensor) -> float:
    """Make a step in the server."""
    return _trainings[key].step(x.numpy(), y.numpy())


def count() -> int:
    return len(_trainings)


def join(name: str, rank: int, target: str) -> None:
    """Enter the group of the server at this target."""
    options = rpc.TensorPipeRpcBackendOptions(init_method=target, rpc_timeout=60)
    rpc.init_rpc(name, rank=rank, world_size=None, rpc_backend_options=options)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    torch.optim.SGD([torch.zeros(1)])  # Loads what the first optimizer needs.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    join(SERVER, 0, target)
    print(target, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    # The clients name this module's functions, not those of `__main__`.
    import rpc_server

    rpc_server.main()
