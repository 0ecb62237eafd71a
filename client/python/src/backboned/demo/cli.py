"""The demo's command line."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import backboned
from backboned.demo import mnist

try:
    import torch
    from tqdm.auto import tqdm

    from backboned.demo import report
    from backboned.demo.replay import (
        Accuracy,
        LocalMlp,
        Outcome,
        Task,
        make_tasks,
        train,
    )

    _MISSING = ""
except ImportError as error:
    _MISSING = str(error.name)

_TASKS = 5
_SHORT_TASKS = 2
_SHORT_IMAGES = 2000
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; give the exit status: 0, 1 on failure, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # Also into a log file.
    if _MISSING:
        return _fail(f"the demo needs {_MISSING}: pip install 'backboned[demo]'")
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return _INTERRUPTED
    except (backboned.BackbonedError, mnist.DataError, OSError) as error:
        return _fail(str(error))


def _fail(sentence: str) -> int:
    print(f"\ndemo: {sentence}", file=sys.stderr)
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
    _add_settings(parser)
    parser.add_argument(
        "--reconnect-timeout",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long to wait for the --server if it goes away; default: 30",
    )
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--short", action="store_true", help="two tasks of 2,000 images"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--buffer", type=int, default=500, help="examples to replay; default: 500"
    )
    parser.add_argument(
        "--threads", type=int, help="threads of each side; default: the server's own"
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


def _run(options: argparse.Namespace) -> int:
    data = mnist.load(options.data)
    count = _SHORT_TASKS if options.short else _TASKS
    tasks = make_tasks(data, count, _SHORT_IMAGES if options.short else None)
    if options.threads:
        torch.set_num_threads(options.threads)
    identical = True
    if options.local:
        outcome, _ = _train_locally(options, tasks)
    else:
        with _server(options) as server:
            outcome, parameters = _train_remotely(options, tasks, server)
            if options.compare:
                torch.set_num_threads(server.info().threads)
                local, local_parameters = _train_locally(options, tasks)
                identical = _compare(local, local_parameters, outcome, parameters)
    _show(options, outcome)
    return 0 if identical else 1


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[backboned.Server]:
    """Connect to the server that is asked for, or start one."""
    if options.server:
        server = backboned.connect(
            options.server, label="demo", reconnect_timeout=options.reconnect_timeout
        )
    else:
        server = backboned.local_server(threads=options.threads, label="demo")
    with server:
        info = server.info()
        how = "connected to" if options.server else "started"
        device = next((d.name for d in info.devices if d.default), "?")
        print(
            f"{how} server {info.version} at {server.target} "
            f"({device}, {info.threads} threads, LibTorch {info.torch_version})"
        )
        yield server


def _train_remotely(
    options: argparse.Namespace, tasks: list[Task], server: backboned.Server
) -> tuple[Outcome, torch.Tensor]:
    torch.set_num_threads(server.info().threads or torch.get_num_threads())
    net = server.create("seq-mnist", seed=options.seed)
    outcome = _train(options, tasks, net, f"in the server, as {net.name}")
    return outcome, net.get_params().detach()


def _train_locally(
    options: argparse.Namespace, tasks: list[Task]
) -> tuple[Outcome, torch.Tensor]:
    torch.manual_seed(options.seed)
    net = LocalMlp()
    outcome = _train(options, tasks, net, "in this process")
    return outcome, torch.nn.utils.parameters_to_vector(net.parameters()).detach()


def _train(
    options: argparse.Namespace, tasks: list[Task], net: torch.nn.Module, where: str
) -> Outcome:
    print(
        f"training {where}: seed {options.seed}, buffer {options.buffer}, "
        f"{torch.get_num_threads()} threads"
    )

    def watch(index: int, batches: Any, count: int) -> Any:
        # Shown on a terminal only; elsewhere the lines after each task suffice.
        text = f"task {index + 1}/{len(tasks)}"
        return tqdm(batches, text, count, leave=False, disable=None, unit="batch")

    def tell(index: int, accuracy: Accuracy) -> None:
        print(
            f"  task {index + 1}/{len(tasks)}: class-incremental "
            f"{accuracy.class_il:6.2f} %, task-incremental {accuracy.task_il:6.2f} %"
        )

    begin = time.monotonic()
    outcome = train(net, tasks, options.seed, options.buffer, watch, tell)
    seconds = time.monotonic() - begin
    steps = len(outcome.losses)
    print(f"  {steps} steps in {seconds:.1f} s, {1e3 * seconds / steps:.2f} ms each")
    return outcome


def _compare(
    local: Outcome, local_parameters: Any, remote: Outcome, remote_parameters: Any
) -> bool:
    """Say whether two trainings are equal to the bit."""
    pairs = zip(local.losses, remote.losses)
    unequal = [step for step, (a, b) in enumerate(pairs, 1) if a != b]
    same = local_parameters.view(torch.int32) == remote_parameters.view(torch.int32)
    differing = int((~same).sum())
    if not unequal and not differing:
        print(
            f"bit-identical: all {len(local.losses)} losses and all "
            f"{same.numel()} final parameters"
        )
        return True
    print(
        f"NOT bit-identical: {len(unequal)} of {len(local.losses)} losses differ"
        + (f", the first in step {unequal[0]}" if unequal else "")
        + f"; {differing} of {same.numel()} final parameters differ"
    )
    return False


def _show(options: argparse.Namespace, outcome: Outcome) -> None:
    print(report.table(outcome.accuracies))
    where = "in process" if options.local else "hosted by a server"
    title = (
        f"Experience replay on seq-mnist, {where}\n"
        f"buffer {options.buffer}, seed {options.seed}"
    )
    path = options.out / "accuracy.png"
    report.plot(outcome.accuracies, title, path)
    print(f"plot: {path}")
