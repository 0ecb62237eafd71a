"""The demo's command line."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

import backboned
from backboned.demo import mnist, replay, report

_TIMED_STEPS = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; give the exit status: 0, 1 on failure, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # Also into a log file.
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (backboned.BackbonedError, mnist.DataError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backboned.demo",
        description="Trains a network that a server hosts: experience replay on "
        "seq-mnist (five tasks of two digits). Shows the accuracy after each task, "
        "class-incremental (among all digits so far) and task-incremental (among the "
        "task's two), as a table and a plot.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local", action="store_true", help="train a plain PyTorch module in process"
    )
    where.add_argument(
        "--compare",
        action="store_true",
        help="train in process and in the server, and compare every bit",
    )
    parser.add_argument(
        "--server",
        metavar="TARGET",
        help="use this server (unix:/path or host:port) instead of starting one",
    )
    parser.add_argument(
        "--reconnect-timeout",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long to wait for the --server if it goes away; default: 30",
    )
    parser.add_argument(
        "--short", action="store_true", help="two tasks of 2,000 images"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--buffer", type=int, default=500, help="examples to replay; default: 500"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="threads of each side; default: 1 beside a server that the demo starts, "
        "since more take cores from the other side; else the --server's, or torch's",
    )
    parser.add_argument(
        "--data",
        metavar="DIR|URL",
        help="folder with MNIST's four idx files, or the URL of a mirror that has "
        "them; default: those at hand, else npm's",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("results/demo"),
        help="where the plot goes; default: results/demo",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    data = mnist.load(options.data)
    count, images = (2, 2000) if options.short else (5, None)
    tasks = replay.make_tasks(data, count, images)
    if options.threads:
        torch.set_num_threads(options.threads)
    identical = True
    if options.local:
        outcome, _ = _train_locally(options, tasks)
    else:
        with _server(options) as server:
            info = server.info()
            device = next((d.name for d in info.devices if d.default), "?")
            print(
                f"{'connected to' if options.server else 'started'} server "
                f"{info.version} at {server.target} ({device}, "
                f"{_threads(info.threads)}, LibTorch {info.torch_version})"
            )
            torch.set_num_threads(info.threads)
            net = server.create("seq-mnist", seed=options.seed)
            # In the server too: a step then moves images and logits only.
            optimizer = backboned.optim.SGD(net, lr=replay.LEARNING_RATE)
            where = f"in the server, as {net.name}"
            outcome = _train(options, tasks, (net, optimizer), where)
            if options.compare:
                local, parameters = _train_locally(options, tasks)
                identical = _compare(local, parameters, outcome, net.get_params())
            _say_step_times(server, tasks[0])
    print(report.table(outcome))
    path = options.out / "accuracy.png"
    title = (
        "Experience replay on seq-mnist, "
        f"{'in process' if options.local else 'hosted by a server'}\n"
        f"buffer {options.buffer}, seed {options.seed}"
    )
    report.plot(outcome, title, path)
    print(f"plot: {path}")
    return 0 if identical else 1


def _server(options: argparse.Namespace) -> backboned.Server:
    """Connect to the server that is asked for, or start one."""
    if options.server:
        return backboned.connect(
            options.server, label="demo", reconnect_timeout=options.reconnect_timeout
        )
    return backboned.local_server(threads=options.threads or 1, label="demo")


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _say_step_times(server: backboned.Server, task: replay.Task) -> None:
    """Time steps in this process, and of networks in the server."""
    local, mirrored = replay.LocalMlp(), server.create("seq-mnist")
    hosted = server.create("seq-mnist")
    rate = replay.LEARNING_RATE
    trained = (
        (local, torch.optim.SGD(local.parameters(), lr=rate)),
        (hosted, backboned.optim.SGD(hosted, lr=rate)),
        (mirrored, torch.optim.SGD(mirrored.parameters(), lr=rate)),
    )
    here, there, pushed = replay.step_times(trained, task, _TIMED_STEPS)
    print(
        f"a step takes {here:.2f} ms in this process; in the server {there:.2f} ms "
        f"({there / here:.2f} times as long), or {pushed:.2f} ms ({pushed / here:.2f}) "
        "if torch.optim steps a copy of the parameters here (medians of "
        f"{_TIMED_STEPS} steps of each, in turn, on {2 * replay.BATCH} images)"
    )


def _train_locally(
    options: argparse.Namespace, tasks: list[replay.Task]
) -> tuple[replay.Outcome, torch.Tensor]:
    """Train in this process; give the final parameters, too."""
    torch.manual_seed(options.seed)
    net = replay.LocalMlp()
    optimizer = torch.optim.SGD(net.parameters(), lr=replay.LEARNING_RATE)
    outcome = _train(options, tasks, (net, optimizer), "in this process")
    return outcome, torch.nn.utils.parameters_to_vector(net.parameters()).detach()


def _train(
    options: argparse.Namespace,
    tasks: list[replay.Task],
    trained: replay.Trained,
    where: str,
) -> replay.Outcome:
    print(
        f"training {where}: seed {options.seed}, buffer {options.buffer}, "
        + _threads(torch.get_num_threads())
    )
    begin = time.monotonic()
    outcome = replay.train(trained, tasks, options.seed, options.buffer, tqdm)
    seconds = time.monotonic() - begin
    steps = len(outcome.losses)
    print(f"  {steps} steps, and evaluations between them, in {seconds:.1f} s")
    return outcome


def _compare(
    local: replay.Outcome,
    local_parameters: torch.Tensor,
    remote: replay.Outcome,
    remote_parameters: torch.Tensor,
) -> bool:
    """Say whether two trainings are equal to the bit."""
    pairs = zip(local.losses, remote.losses)
    unequal = [step for step, (a, b) in enumerate(pairs, 1) if a != b]
    same = local_parameters.view(torch.int32) == remote_parameters.view(torch.int32)
    differing = int((~same).sum())
    losses, parameters = len(local.losses), same.numel()
    if unequal or differing:
        first = f", the first in step {unequal[0]}" if unequal else ""
        print(
            f"NOT bit-identical: {len(unequal)} of {losses} losses differ{first}; "
            f"{differing} of {parameters} final parameters differ"
        )
        return False
    print(f"bit-identical: all {losses} losses and all {parameters} final parameters")
    return True
