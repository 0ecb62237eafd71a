"""Experience replay as Mammoth runs it, down to the order of the random numbers.

Source: Chaudhry et al. 2019, arXiv:1902.10486; the setting is that of Mammoth
(github.com/aimagelab/mammoth, commit e75a491): `--model er --dataset seq-mnist
--lr 0.1 --batch_size 64 --minibatch_size 64 --n_epochs 1`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from backboned.demo.mnist import Images, Mnist

_PIXELS = 28 * 28
_HIDDEN = 100
_WARM = 20


class LocalMlp(nn.Module):
    """Two hidden layers with ReLU: what `server.create("seq-mnist")` hosts.

    Source: Mammoth's `mnistmlp` (github.com/aimagelab/mammoth, commit e75a491).
    PyTorch's own initialisation is drawn first and then replaced by Xavier's, layer
    by layer, so that a seed gives the same bits.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(_PIXELS, _HIDDEN)
        self.fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.classifier = nn.Linear(_HIDDEN, num_classes)
        with torch.no_grad():
            for layer in (self.fc1, self.fc2, self.classifier):
                fan_out, fan_in = layer.weight.shape
                bound = math.sqrt(3.0) * math.sqrt(2.0 / (fan_in + fan_out))
                layer.weight.uniform_(-bound, bound)
                layer.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits [N, K] of images [N, 1, 28, 28]."""
        hidden = torch.relu(self.fc1(x.view(len(x), -1)))
        logits: torch.Tensor = self.classifier(torch.relu(self.fc2(hidden)))
        return logits


BATCH = 64
LEARNING_RATE = 0.1
CLASSES_PER_TASK = 2


class Samples(NamedTuple):
    """Images [N, 1, 28, 28] float32 in 0 to 1, and labels [N] int64."""

    images: torch.Tensor
    labels: torch.Tensor


class Task(NamedTuple):
    """Two digits: what is trained, and what is tested."""

    train: Samples
    test: Samples


class Outcome(NamedTuple):
    """The results of a training.

    - `losses`: of each step.
    - `class_il`, `task_il`: after each task, the accuracy in percent, the mean over the
      tasks seen so far: among all digits seen so far, and among the task's own two.
    """

    losses: list[float]
    class_il: list[float]
    task_il: list[float]


def make_tasks(data: Mnist, count: int, limit: int | None = None) -> list[Task]:
    """Cut MNIST into tasks of two digits, each with at most `limit` training images."""
    return [
        Task(
            _samples(data.train_images, data.train_labels, task, limit),
            _samples(data.test_images, data.test_labels, task, None),
        )
        for task in range(count)
    ]


def _samples(images: Images, labels: Images, task: int, limit: int | None) -> Samples:
    mine = np.flatnonzero(labels // CLASSES_PER_TASK == task)[:limit]
    pixels = torch.from_numpy(images[mine]).unsqueeze(1).float().div(255)
    return Samples(pixels, torch.from_numpy(labels[mine]).long())


class Reservoir:
    """A buffer in which each example seen so far has the same chance to be.

    Source: Vitter 1985, Random sampling with a reservoir.
    """

    def __init__(self, capacity: int, random: np.random.RandomState) -> None:
        self._random = random
        self._seen = 0
        self._images = torch.zeros(capacity, 1, 28, 28)
        self._labels = torch.zeros(capacity, dtype=torch.long)

    def __len__(self) -> int:
        """Give the number of examples held."""
        return min(self._seen, len(self._labels))

    def add(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Offer a batch of examples."""
        for image, label in zip(images, labels):
            place = self._seen
            if place >= len(self._labels):
                place = self._random.randint(0, self._seen + 1)
            self._seen += 1
            if place < len(self._labels):
                self._images[place] = image
                self._labels[place] = label

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw different examples, at most as many as there are."""
        held = len(self)
        chosen = self._random.choice(held, size=min(count, held), replace=False)
        return self._images[chosen], self._labels[chosen]


def batches(samples: Samples, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Give shuffled batches, in the order of Mammoth's DataLoader.

    Its generator is seeded anew for each task, and has drawn two seeds for workers
    (the loader's iterator is made twice) before it shuffles.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.empty(2, dtype=torch.int64).random_(generator=generator)
    order = torch.randperm(len(samples.labels), generator=generator)
    for chosen in torch.split(order, BATCH):
        yield samples.images[chosen], samples.labels[chosen]


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> float:
    """Make a training step; give its loss."""
    optimizer.zero_grad()
    loss = F.cross_entropy(net(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


Trained = tuple[nn.Module, torch.optim.Optimizer]
"""A network, and what steps it."""


def step_times(trained: Sequence[Trained], task: Task, count: int) -> list[float]:
    """Train networks in turn on a batch of the training's size; give the median ms.

    - `count`: steps of each that are timed, after some to warm up.
    """
    inputs, targets = (part[: 2 * BATCH] for part in task.train)
    seconds: list[list[float]] = []
    for _ in range(_WARM + count):
        seconds.append([])
        for net, optimizer in trained:
            begin = time.perf_counter()
            _step(net, optimizer, inputs, targets)
            seconds[-1].append(time.perf_counter() - begin)
    return [1e3 * statistics.median(times) for times in zip(*seconds[_WARM:])]


def train(
    trained: Trained,
    tasks: list[Task],
    seed: int,
    buffer_size: int,
    progress: Callable[..., Any],
) -> Outcome:
    """Train a network task after task, each for one epoch; print the accuracies.

    - `trained`: its network gives logits [N, 10] for images [N, 1, 28, 28].
    - `progress`: tqdm's. It shows batches on a terminal only.
    """
    net, optimizer = trained
    buffer = Reservoir(buffer_size, np.random.RandomState(seed))
    outcome = Outcome([], [], [])
    for index, task in enumerate(tasks):
        net.train()
        title = f"task {index + 1}/{len(tasks)}"
        count = -(-len(task.train.labels) // BATCH)
        shown = {"leave": False, "disable": None, "unit": "batch"}
        order = batches(task.train, seed)
        for images, labels in progress(order, title, count, **shown):
            inputs, targets = images, labels
            if len(buffer):
                old_images, old_labels = buffer.draw(BATCH)
                inputs = torch.cat((images, old_images))
                targets = torch.cat((labels, old_labels))
            outcome.losses.append(_step(net, optimizer, inputs, targets))
            buffer.add(images, labels)
        class_il, task_il = evaluate(net, tasks[: index + 1])
        outcome.class_il.append(class_il)
        outcome.task_il.append(task_il)
        print(
            f"  {title}: class-incremental {class_il:6.2f} %, "
            f"task-incremental {task_il:6.2f} %"
        )
    return outcome


@torch.no_grad()
def evaluate(net: nn.Module, seen: list[Task]) -> tuple[float, float]:
    """Give the accuracies of an `Outcome` after the tasks seen so far."""
    net.eval()
    class_il, task_il = [], []
    for index, task in enumerate(seen):
        images, labels = task.test
        logits = torch.cat([net(batch) for batch in torch.split(images, BATCH)])
        first = index * CLASSES_PER_TASK
        own = logits[:, first : first + CLASSES_PER_TASK].argmax(1) + first
        among_seen = logits[:, : len(seen) * CLASSES_PER_TASK].argmax(1)
        class_il.append((among_seen == labels).double().mean().item())
        task_il.append((own == labels).double().mean().item())
    return 100 * float(np.mean(class_il)), 100 * float(np.mean(task_il))
