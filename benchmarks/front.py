"""Measures what a front costs; run it on a quiet machine.

    PYTHONPATH=tests/front .venv/bin/python benchmarks/front.py [ROUNDS]

Starts a server with one thread, an Envoy before it as `backbonectl front` sets it up,
and another one without TLS. Calls go in turn: straight to the server's socket, and
through the front. Prints the p10 and the median of each side, the difference of the
p10s, and how fast 45 MB come by GetParams with TLS and without. Needs scripts/setup and
scripts/build.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Callable

import backboned
import grpc
import numpy as np
import yaml
from backboned.v1 import backbone_service_pb2 as backbone
from backboned.v1 import instance_service_pb2 as instances
from stand import (
    GET_SERVER,
    LARGE,
    Stand,
    bearer,
    find_envoy,
    free_port,
    wait_until,
    who,
)
from stats import percentile

GET_PARAMS = "/backboned.v1.BackboneService/GetParams"
CREATE = "/backboned.v1.InstanceService/CreateInstance"
TRANSFERS = 20


def in_turn(rounds: int, sides: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Make calls in turn; give each side's times, in ms."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, call in sides.items():
            begin = time.perf_counter()
            call()
            times[side].append((time.perf_counter() - begin) * 1e3)
    return times


def show(what: str, times: dict[str, list[float]]) -> None:
    """Print the figures of calls that went straight, and through a front."""
    straight, through = times.values()
    tens = [percentile(side, 10) for side in (straight, through)]
    print(
        f"{what}: p10 {tens[0]:.3f} and {tens[1]:.3f} ms, {tens[1] - tens[0]:.3f} ms "
        f"more; median {median(straight):.3f} and {median(through):.3f} ms"
    )


def without_tls(stand: Stand) -> tuple[Path, int]:
    """Write the front's configuration once more, without TLS; give it and its port."""
    config = yaml.safe_load((stand.out / "envoy.yaml").read_text())
    port = free_port()
    config["admin"]["address"]["pipe"]["path"] = str(stand.out / "plain.sock")
    listener = config["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = port
    for chain in listener["filter_chains"]:
        del chain["transport_socket"]
    path = stand.out / "plain.yaml"
    path.write_text(yaml.safe_dump(config))
    return path, port


def calls(stand: Stand, token: str, rounds: int) -> None:
    """Measure small calls."""
    x = np.zeros((1, 1, 28, 28), np.float32)
    with (
        backboned.connect(stand.socket) as straight,
        backboned.connect(
            f"127.0.0.1:{stand.port}", ca=stand.ca, token=token
        ) as through,
    ):
        nets = [
            server.create("seq-mnist", seed=0, module=False)
            for server in (straight, through)
        ]
        for net in nets:
            net.forward(x)
        times = in_turn(
            rounds,
            {
                "straight": lambda: nets[0].forward(x),
                "through": lambda: nets[1].forward(x),
            },
        )
    show("a perceptron's forward in an open stream", times)
    with stand.admin() as channel, stand.channel() as front:
        asks = [each.unary_unary(GET_SERVER) for each in (channel, front)]
        metadata = bearer(token)
        times = in_turn(
            rounds,
            {
                "straight": lambda: asks[0](b""),
                "through": lambda: asks[1](b"", metadata=metadata),
            },
        )
    show("GetServer, a unary call", times)


def transfers(stand: Stand, token: str) -> None:
    """Measure downloads of a ResNet18, through fronts with TLS and without."""
    path, port = without_tls(stand)
    options = ["--concurrency", "2", "--disable-hot-restart", "--log-level", "error"]
    envoy = subprocess.Popen(
        [find_envoy(), "-c", path, *options], stdout=subprocess.DEVNULL
    )
    try:
        with (
            stand.channel() as tls,
            grpc.insecure_channel(f"127.0.0.1:{port}", LARGE) as plain,
        ):
            wait_until(lambda: who(plain, bearer(token)) == "alice")
            large = instances.CreateInstanceRequest(
                name="large", benchmark="seq-cifar10", seed=0
            )
            tls.unary_unary(CREATE)(large.SerializeToString(), metadata=bearer(token))
            times = in_turn(
                TRANSFERS,
                {
                    "tls": lambda: download(tls, token),
                    "plain": lambda: download(plain, token),
                },
            )
    finally:
        envoy.terminate()
        envoy.wait()
    rates = {side: 44.7 / median(each) for side, each in times.items()}
    print(
        f"GetParams of 44.7 MB: {rates['tls']:.2f} GB/s by TLS, {rates['plain']:.2f} "
        f"without, {rates['tls'] / rates['plain']:.2f} of it"
    )


def download(channel: grpc.Channel, token: str) -> None:
    """Read all parameters."""
    request = backbone.GetParamsRequest(instance="large").SerializeToString()
    for _ in channel.unary_stream(GET_PARAMS)(request, metadata=bearer(token)):
        pass


def main() -> None:
    """Measure, and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with Stand() as stand:
        token = stand.token()
        calls(stand, token, rounds)
        transfers(stand, token)


if __name__ == "__main__":
    main()
