"""A training server of grpcio and torch, as one writes it in an afternoon.

Usage: plain_server.py THREADS SOCKET

One method takes pickled calls, and one lock lets the device do one thing at a time.
It runs any code of anybody who reaches its socket: a peer to measure, no more.
"""

import pickle
import sys
import threading
from concurrent import futures
from typing import Any

import grpc
import torch
from model import Training


class PlainServer:
    """Holds each client's network until it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trainings: dict[int, Training] = {}

    def do(self, request: tuple[Any, ...], context: grpc.ServicerContext) -> Any:
        """Do what a request says: its first word is the method."""
        method, *arguments = request
        with self._lock:
            return getattr(self, method)(*arguments)

    def begin(self, spec: dict[str, Any]) -> int:
        key = len(self._trainings)
        self._trainings[key] = Training(spec)
        return key

    def step(self, key: int, x: Any, y: Any) -> float:
        return self._trainings[key].step(x, y)

    def count(self) -> int:
        return len(self._trainings)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    torch.optim.SGD([torch.zeros(1)])  # Loads what the first optimizer needs.
    handler = grpc.unary_unary_rpc_method_handler(
        PlainServer().do, pickle.loads, pickle.dumps
    )
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("Plain", {"Do": handler})]
    )
    server.add_insecure_port(sys.argv[2])
    server.start()
    print(sys.argv[2], flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
