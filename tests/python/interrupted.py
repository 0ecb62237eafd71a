"""A training that Ctrl-C stops at random instants, and that then goes on.

    python interrupted.py mirrored|hosted COUNT SEED

Prints after how many interrupts the training went on. Uses the public interface only.
"""

import math
import os
import random
import signal
import sys
import threading
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import backboned  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

PATIENCE_S = 60


class Pest:
    """Presses Ctrl-C after a random time, and again if nobody took notice.

    A signal that comes within a destructor is dropped by Python.
    """

    def __init__(self, seconds):
        self.noticed = threading.Event()
        self.thread = threading.Thread(target=self._press, args=(seconds,), daemon=True)

    def _press(self, seconds):
        time.sleep(seconds)
        while not self.noticed.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            self.noticed.wait(2)


def rest(thread):
    """Wait for a thread, whatever comes."""
    end = time.monotonic() + PATIENCE_S
    while thread.is_alive() and time.monotonic() < end:
        thread.join(1)
    assert not thread.is_alive(), "it hangs"


class Training:
    """The README's loop."""

    def __init__(self, server, mode):
        self.net = server.create("seq-mnist", seed=0)
        self.net.timeout = PATIENCE_S
        if mode == "hosted":
            self.opt = backboned.optim.SGD(self.net, lr=0.01, momentum=0.9)
        else:
            self.opt = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)
        self.x = torch.rand(64, 1, 28, 28)
        self.y = torch.randint(10, (64,))
        self.losses = []

    def step(self):
        self.opt.zero_grad()
        loss = F.cross_entropy(self.net(self.x), self.y)
        loss.backward()
        self.opt.step()
        self.losses.append(loss.item())

    def check(self):
        """Train on, and see that client and server agree."""
        for _ in range(2):
            self.step()
        with torch.no_grad():
            self.net(self.x)
        here = self.net.get_params().detach()
        there = torch.from_numpy(self.net.instance.get_params())
        assert torch.equal(here, there)
        assert math.isfinite(self.losses[-1])


def interrupt(training, seconds):
    pest = Pest(seconds)
    try:
        pest.thread.start()
        while True:
            training.step()
    except KeyboardInterrupt:
        pest.noticed.set()
    rest(pest.thread)


def main(mode, count, seed):
    dice = random.Random(seed)
    threads = int(os.environ.get("THREADS", "1"))
    torch.set_num_threads(threads)
    well = 0
    with backboned.local_server(threads=threads) as server:
        training = Training(server, mode)
        begin = time.monotonic()
        for _ in range(3):
            training.step()
        took = (time.monotonic() - begin) / 3
        for number in range(count):
            interrupt(training, dice.uniform(0, 3 * took))
            failures = []

            def go_on(failures=failures):
                try:
                    training.check()
                except BaseException as error:
                    failures.append(error)

            if number % 2:  # In the main thread, and in another.
                go_on()
            else:
                thread = threading.Thread(target=go_on, daemon=True)
                thread.start()
                rest(thread)
            if failures:
                print(f"{number}: {failures[0]!r}", file=sys.stderr, flush=True)
            else:
                well += 1
    print(f"{well} of {count}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
