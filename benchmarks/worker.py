"""Measures from Python on command: a network in process, or one in a server.

Usage: worker.py THREADS

Reads commands from standard input, a JSON object a line, and prints the answer to
each; blocked in read() between. A command with a "target" is about that server's
instance, one without about a network in this process:

    {"do": "about"}
    {"do": "forward", "benchmark": B, "batch": N, "seconds": S}
    {"do": "call", "target": T, "benchmark": B, "batch": N, "seconds": S}
    {"do": "gradients", "benchmark": B, "batch": N, "seconds": S}
    {"do": "step", "benchmark": B, "batch": N, "seconds": S, "way": W}
    {"do": "tapes", "target": T, "benchmark": B, "count": N, "together": H, ...}
`together` is empty (a call each), each (per_tape_grads) or squares (squared_grads).
A step's way with a target is mirrored (the default), hosted or train_step.

    {"do": "get_params" | "set_params" | "stock_get", "target": T, ...}
    {"do": "beside", "target": T, "large": L, "transfer": "" | "stream" | "rpc", ...}
`beside` makes forwards while another thread writes the parameters of L.
"""

import json
import os
import sys
import threading
import time
from typing import Any, Callable

import backboned
import backboned.optim
import grpc
import numpy as np
import torch
from backboned.v1 import backbone_service_pb2 as pb
from networks import NETWORKS
from torch.nn import functional as F

Command = dict[str, Any]


def measure(command: Command, call: Callable[[], None]) -> dict[str, Any]:
    """Make calls for the command's seconds; the first few do not count."""
    for _ in range(command.get("warmup", 1)):
        call()
    latencies = []
    begin = last = time.perf_counter()
    while last - begin < command["seconds"] or len(latencies) < command.get(
        "min_calls", 1
    ):
        call()
        now = time.perf_counter()
        latencies.append(now - last)
        last = now
    return {"latency_s": latencies, "wall_s": last - begin}


class Worker:
    """Answers commands, and keeps connections and networks from one to the next."""

    def __init__(self) -> None:
        self._servers: dict[str, Any] = {}
        self._nets: dict[tuple[str, str, str], Any] = {}
        self._optimizers: dict[tuple[str, str, str], torch.optim.SGD] = {}
        self._stock: dict[str, Any] = {}

    def answer(self, command: Command) -> dict[str, Any]:
        """Do what a command says."""
        action = getattr(self, "do_" + command["do"])
        return action(command)

    def do_about(self, command: Command) -> dict[str, Any]:
        return {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "grpcio": grpc.__version__,
            "numpy": np.__version__,
        }

    def do_forward(self, command: Command) -> dict[str, Any]:
        """Run forwards in evaluation mode, without a graph."""
        net = self._net(command).eval()
        x = self._input(command)
        with torch.no_grad():
            return measure(command, lambda: net(x))

    def do_call(self, command: Command) -> dict[str, Any]:
        """Run forwards of arrays, and say where the time of each went.

        *transport* is the time from the transport's call to its answer.
        """
        instance = self._net(command).instance
        connection = instance.channel.connection
        x = self._input(command).numpy()
        names = ("compute", "handler", "queue", "transport")
        phases: dict[str, list[float]] = {name: [] for name in names}
        way = connection if connection.native is None else instance.channel
        carry = way.call

        def timed(*arguments: Any) -> Any:
            begin = time.perf_counter()
            answer = carry(*arguments)
            phases["transport"].append(time.perf_counter() - begin)
            return answer

        def run() -> None:
            timings = instance.forward(x).timings
            phases["compute"].append(timings.compute)
            phases["handler"].append(timings.total)
            phases["queue"].append(timings.queue)

        instance.forward(x)  # From now on grpcio's answer is one message.
        way.call = timed
        try:
            result = measure(command, run)
        finally:
            del way.call
        count = len(result["latency_s"])
        return {**result, "phases": {k: v[-count:] for k, v in phases.items()}}

    def do_gradients(self, command: Command) -> dict[str, Any]:
        """Run forwards in training, and compute the gradients of the logits' sum."""
        net = self._net(command).train()
        x = self._input(command)

        def run() -> None:
            net.zero_grad()
            net(x).sum().backward()

        return measure(command, run)

    def do_step(self, command: Command) -> dict[str, Any]:
        """Run training steps, and say how long the parts of each took."""
        net = self._net(command).train()
        if command.get("way") == "train_step":
            return self._train_steps(net, command)
        if "target" in command and "way" not in command:
            net.pull()  # Other measurements may have changed it.
        optimizer = self._optimizers[self._key(command)]
        x = self._input(command)
        labels = torch.arange(command["batch"]) % 10
        phases: dict[str, list[float]] = {"forward": [], "backward": [], "step": []}

        def step() -> None:
            begin = time.perf_counter()
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), labels)
            forward_end = time.perf_counter()
            loss.backward()
            backward_end = time.perf_counter()
            optimizer.step()
            phases["forward"].append(forward_end - begin)
            phases["backward"].append(backward_end - forward_end)
            phases["step"].append(time.perf_counter() - backward_end)

        result = measure(command, step)
        count = len(result["latency_s"])
        return {**result, "phases": {k: v[-count:] for k, v in phases.items()}}

    def _train_steps(self, net: Any, command: Command) -> dict[str, Any]:
        """Run training steps of one round trip each."""
        optimizer = self._optimizers[self._key(command)]
        x = self._input(command)
        labels = torch.arange(command["batch"]) % 10
        terms = [backboned.CrossEntropy(labels.numpy())]
        return measure(command, lambda: net.train_step(x, terms, optimizer=optimizer))

    def do_tapes(self, command: Command) -> dict[str, Any]:
        """Compute each sample's own gradient: in one call, or in a call each."""
        instance = self._net(command).instance
        x = self._input({**command, "batch": 1}).numpy()
        gradient = np.ones((1, 10), np.float32)

        def run() -> None:
            tapes = [
                instance.forward(x, tape=True).tape_id for _ in range(command["count"])
            ]
            begin = time.perf_counter()
            if command["together"]:
                instance.backward(
                    {tape: {"out": gradient} for tape in tapes},
                    per_tape_grads=command["together"] == "each",
                    squared_grads=command["together"] == "squares",
                )
            else:
                for tape in tapes:
                    instance.backward({tape: {"out": gradient}})
            backwards.append(time.perf_counter() - begin)

        backwards: list[float] = []
        result = measure(command, run)
        # Of the backwards alone: the forwards are the same on both sides.
        count = len(result["latency_s"])
        return {**result, "latency_s": backwards[-count:]}

    def do_beside(self, command: Command) -> dict[str, Any]:
        """Make forwards, while the parameters of a large network are written."""
        instance = self._net(command).instance
        x = self._input(command).numpy()
        ended = threading.Event()
        transfer = threading.Thread(target=self._write, args=(command, ended))
        transfer.start()
        try:
            return measure(command, lambda: instance.forward(x))
        finally:
            ended.set()
            transfer.join()

    def _write(self, command: Command, ended: threading.Event) -> None:
        way = command["transfer"]
        if not way:
            return
        server = self._servers[command["target"]]
        if way == "rpc":
            os.environ["BACKBONED_TRANSPORT"] = "grpcio"
            server = backboned.connect(command["target"])
            server.info()
            os.environ["BACKBONED_TRANSPORT"] = "native"
        large = server.create(command["large"], module=False)
        values = np.array(large.get_params())
        while not ended.is_set():
            large.set_params(values)
        large.delete()

    def do_get_params(self, command: Command) -> dict[str, Any]:
        """Read parameters as the Python client does."""
        instance = self._net(command).instance
        size = instance.get_params().nbytes
        return {**measure(command, lambda: instance.get_params()), "bytes": size}

    def do_set_params(self, command: Command) -> dict[str, Any]:
        """Write parameters as the Python client does."""
        instance = self._net(command).instance
        values = np.array(instance.get_params())
        result = measure(command, lambda: instance.set_params(values))
        return {**result, "bytes": values.nbytes}

    def do_stock_get(self, command: Command) -> dict[str, Any]:
        """Read parameters as generated code and default options do."""
        target = command["target"]
        if target not in self._stock:
            channel = grpc.insecure_channel(target)
            self._stock[target] = channel.unary_stream(
                "/backboned.v1.BackboneService/GetParams",
                request_serializer=pb.GetParamsRequest.SerializeToString,
                response_deserializer=pb.GetParamsResponse.FromString,
            )
        method = self._stock[target]
        request = pb.GetParamsRequest(instance=command["benchmark"])

        def read() -> int:
            whole = b"".join(message.chunk.data for message in method(request))
            return torch.frombuffer(bytearray(whole), dtype=torch.float32).nbytes

        return {**measure(command, read), "bytes": read()}

    def _net(self, command: Command) -> Any:
        """Give the network of a command, made the first time that it is asked for."""
        key = self._key(command)
        if key not in self._nets:
            target, benchmark, way = key
            optim: Any = torch.optim
            if target:
                if target not in self._servers:
                    self._servers[target] = backboned.connect(target)
                server = self._servers[target]
                # A network that is trained by itself is an instance of its own.
                net = server.create(benchmark) if way else server.instance(benchmark)
                optim = backboned.optim if way in ("hosted", "train_step") else optim
            else:
                net = NETWORKS[benchmark]()
            self._nets[key] = net
            self._optimizers[key] = optim.SGD(net.parameters(), lr=0.01)
        return self._nets[key]

    def _key(self, command: Command) -> tuple[str, str, str]:
        target = command.get("target", "")
        return target, command["benchmark"], command.get("way", "") if target else ""

    def _input(self, command: Command) -> torch.Tensor:
        shape = NETWORKS[command["benchmark"]].input_shape
        generator = torch.Generator().manual_seed(0)
        return torch.rand((command["batch"], *shape), generator=generator)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # Its text is the answer.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
