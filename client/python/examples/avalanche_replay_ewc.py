"""Avalanche's Replay and EWC on SplitMNIST, with the network in a server.

    python avalanche_replay_ewc.py            the network is in a server
    python avalanche_replay_ewc.py --hosted   its optimizer, too
    python avalanche_replay_ewc.py --local    a plain module in this process

All print the same accuracies, to the last digit. Avalanche sees an `nn.Module` and
nothing else. Needs avalanche-lib 0.6.0; see README.md.
"""

import argparse
import contextlib
import os
import random
import warnings

# Before torch is loaded: trainer and server share the processor.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import backboned
import numpy as np
import torch
from backboned.demo import mnist
from backboned.demo.replay import LocalMlp
from torch.utils.data import TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of Avalanche's optional packages.
    from avalanche.benchmarks import nc_benchmark
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training import EWC, Replay
    from avalanche.training.plugins import EvaluationPlugin

THREADS = 2
EXPERIENCES = 5
ACCURACY = "Top1_Acc_Stream/eval_phase/test_stream/Task000"

STRATEGIES = {
    "Replay": (Replay, {"mem_size": 200}),
    "EWC": (EWC, {"ewc_lambda": 0.4}),
}


def main() -> None:
    options = parsed()
    warnings.simplefilter("ignore", DeprecationWarning)  # Avalanche's own.
    torch.set_num_threads(THREADS)
    train = split(options.images, "train")
    test = split(options.images // 2, "test")
    with server(options) as there:
        for name in STRATEGIES:
            net = network(there, options.seed)
            accuracies = learn(name, net, optimizer(options, net), train, test, options)
            print(f"{name}: {' '.join(map(repr, accuracies))}", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Avalanche with a remote network.")
    parser.add_argument("--local", action="store_true", help="train in this process")
    parser.add_argument("--hosted", action="store_true", help="step in the server")
    parser.add_argument("--server", metavar="TARGET", help="default: one of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2000, help="default: 2000")
    return parser.parse_args()


def server(options: argparse.Namespace):
    if options.local:
        return contextlib.nullcontext()
    if options.server:
        return backboned.connect(options.server, label="avalanche")
    return backboned.local_server(threads=THREADS, label="avalanche")


def network(there, seed: int) -> torch.nn.Module:
    """Give the network; this is all that differs."""
    if there:
        return there.create("seq-mnist", seed=seed)
    torch.manual_seed(seed)
    return LocalMlp()


def optimizer(options: argparse.Namespace, net: torch.nn.Module):
    """Give an optimizer, whose memory Avalanche empties before each experience."""
    where = backboned.optim if options.hosted else torch.optim
    return where.SGD(net.parameters(), lr=0.05, momentum=0.5)


def split(count: int, part: str) -> TensorDataset:
    """Give the first images of a part of MNIST, as Avalanche takes them."""
    data = mnist.load()._asdict()
    pixels = torch.from_numpy(data[f"{part}_images"][:count])
    labels = torch.from_numpy(data[f"{part}_labels"][:count]).long()
    dataset = TensorDataset(pixels.unsqueeze(1).float() / 255, labels)
    dataset.targets = labels.tolist()
    return dataset


def learn(
    name: str,
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    train: TensorDataset,
    test: TensorDataset,
    options: argparse.Namespace,
) -> list[float]:
    """Learn two digits after two; give the accuracy on all ten after each."""
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(options.seed)
    benchmark = nc_benchmark(
        train, test, n_experiences=EXPERIENCES, task_labels=False, shuffle=False
    )
    kind, settings = STRATEGIES[name]
    strategy = kind(
        model=net,
        optimizer=optimizer,
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=32,
        eval_mb_size=100,
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True), loggers=[]),
        **settings,
    )
    accuracies = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        accuracies.append(strategy.eval(benchmark.test_stream)[ACCURACY])
    return accuracies


if __name__ == "__main__":
    main()
