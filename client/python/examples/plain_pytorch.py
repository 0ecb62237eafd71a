"""A training loop of plain PyTorch whose network is in a server.

Trains a perceptron on 2,000 images of MNIST, in one of three places:

    python plain_pytorch.py                   mirrored: parameters here, torch.optim
    python plain_pytorch.py --mode hosted     parameters and optimizer in the server
    python plain_pytorch.py --mode local      no server

All three print the same numbers, to the last digit.
"""

import argparse
import contextlib
import os

# Before torch is loaded: trainer and server share the processor.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import backboned
import torch
from backboned import optim
from backboned.demo import mnist
from backboned.demo.replay import LocalMlp
from torch.nn import functional as F

THREADS = 2
BATCH = 50


def main() -> None:
    options = parsed()
    torch.set_num_threads(THREADS)
    images, labels = load(2000)
    with server(options) as there:
        net, optimizer = network(options.mode, there, options.seed)
        for epoch in range(options.epochs):
            loss = train(net, optimizer, images, labels)
            print(f"epoch {epoch + 1}: loss {loss!r}, {accuracy(net, images, labels)}")
        if there:
            print(f"{net.mode}, {net.traffic}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A training with plain PyTorch.")
    parser.add_argument(
        "--mode", choices=["mirrored", "hosted", "local"], default="mirrored"
    )
    parser.add_argument("--server", metavar="TARGET", help="default: one of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    return parser.parse_args()


def load(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the first images [N, 1, 28, 28] of MNIST, in 0 to 1, and labels [N]."""
    data = mnist.load()
    images = torch.from_numpy(data.train_images[:count]).unsqueeze(1).float() / 255
    return images, torch.from_numpy(data.train_labels[:count]).long()


def server(options: argparse.Namespace):
    if options.mode == "local":
        return contextlib.nullcontext()
    if options.server:
        return backboned.connect(options.server, label="plain_pytorch")
    return backboned.local_server(threads=THREADS, label="plain_pytorch")


def network(mode: str, there, seed: int):
    """Give the network and its optimizer; this is all that differs."""
    if mode == "local":
        torch.manual_seed(seed)
        net = LocalMlp()
    else:
        net = there.create("seq-mnist", seed=seed)
    kind = optim.SGD if mode == "hosted" else torch.optim.SGD
    return net, kind(net.parameters(), lr=0.1, momentum=0.9)


def train(net, optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Train for an epoch; give the last loss."""
    net.train()
    for x, y in zip(images.split(BATCH), labels.split(BATCH)):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


@torch.no_grad()
def accuracy(net, images: torch.Tensor, labels: torch.Tensor) -> str:
    net.eval()
    right = sum(
        int((net(x).argmax(1) == y).sum())
        for x, y in zip(images.split(BATCH), labels.split(BATCH))
    )
    return f"{100 * right / len(labels)} % right"


if __name__ == "__main__":
    main()
