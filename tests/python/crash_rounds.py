"""Kills a server that saves checkpoints, again and again, and looks what is there.

Each round starts a server on the folder that the round before left, checks the folder
against what was acknowledged, lets writers save, load, delete and list, and ends it: at
a random moment, before a call that changes the folder, or so that the disk loses what
was not synced (tests/crash/faults.c). See scripts/crash-test.
"""

import argparse
import dataclasses
import hashlib
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from backboned.errors import BackbonedError, NotFound, Unavailable
from backboned.transport.local import find_binary
from kept_server import KeptServer, end_cut

SMALL = {"architecture": "mnistmlp", "num_classes": 3, "mlp_hidden_size": 4}
WRITERS = 3
NAMES = ("a", "b")  # Of each writer.
VALUES = 4  # Of trunks, and of heads: equal files are often shared.
WAYS = ("kill", "call", "cut")


class LostError(Exception):
    """The folder is not what was acknowledged."""


@dataclasses.dataclass
class Name:
    """The checkpoints of one name that must be there, as numbers and digests."""

    must: set = dataclasses.field(default_factory=set)
    # Those besides that may be there: their call got no answer.
    may: set = dataclasses.field(default_factory=set)
    may_digests: set = dataclasses.field(default_factory=set)

    def check(self, name, found):
        if missing := self.must - found:
            raise LostError(f"{name}: {sorted(missing)} acknowledged, and lost")
        for number, digest in found - self.must - self.may:
            if digest not in self.may_digests:
                raise LostError(f"{name}: {number, digest} was deleted, or never sent")
        self.must, self.may, self.may_digests = set(found), set(), set()


class Writer(threading.Thread):
    """A client with names of its own, whose calls come one after another."""

    def __init__(self, rounds, number):
        super().__init__(daemon=True)
        self.rounds, self.number, self.error = rounds, number, None
        self.dice = random.Random(f"{rounds.seed} {rounds.count} {number}")

    def run(self):
        try:
            with self.rounds.server.connect() as server:
                net = server.create(
                    **SMALL,
                    name=f"net-{self.number}",
                    seed=self.number,
                    exist_ok=True,
                    module=False,
                )
                if net.version.params == 1:
                    digest = net.info(digest=True).digest
                    sent = hashlib.sha256(net.get_params()).hexdigest()
                    self.rounds.sent[digest] = sent
                while not self.rounds.is_over:
                    self.act(server, net)
        except Unavailable:
            pass  # The server was killed.
        except Exception as error:  # noqa: BLE001 - the round tells of it.
            self.error = error

    def act(self, server, net):
        name = f"{self.number}-{self.dice.choice(NAMES)}"
        known = self.rounds.names.setdefault(name, Name())
        what = self.dice.choices(["save", "load", "delete", "list"], [6, 2, 1, 1])[0]
        getattr(self, what)(server, net, name, known)

    def save(self, server, net, name, known):
        parameters = self.rounds.draw(self.dice)
        net.set_params(parameters)
        keep = self.dice.randint(1, 3)
        digest = net.info(digest=True).digest
        self.rounds.sent[digest] = hashlib.sha256(parameters).hexdigest()
        before = sorted(known.must)
        stay = before[len(before) - keep + 1 :] if keep > 1 else []
        # Until there is an answer, any of this may be.
        known.must, known.may = set(stay), {*before}
        known.may_digests = {digest}
        made = net.save(name, keep=keep)
        assert made.instance.digest == digest
        known.must.add((made.number, digest))
        known.may, known.may_digests = set(), set()
        self.rounds.saves += 1

    def delete(self, server, net, name, known):
        known.may, known.must = {*known.must}, set()
        try:
            server.delete_checkpoint(name)
        except NotFound:
            assert not known.may, f"{name}: {sorted(known.may)} is gone"
        known.may = set()

    def load(self, server, net, name, known):
        if known.must:
            number, digest = self.dice.choice(sorted(known.must))
            self.rounds.load(server, name, number, digest)

    def list(self, server, net, name, known):
        found = self.rounds.found(server).get(name, set())
        assert found == known.must, f"{name}: {found}, expected {known.must}"


class Rounds:
    """The rounds, and what was acknowledged so far."""

    def __init__(self, binary, folder, seed, ways=WAYS, sabotage=None):
        self.seed, self.dice, self.ways = seed, random.Random(seed), ways
        self.server = KeptServer(binary, folder, faulty=True, cut=True)
        self.server.options += [
            "--log-level=warn",
            "--save-versions=3",
            "--save-interval=inf",  # So that nothing changes while it checks.
        ]
        self.sabotage = sabotage
        self.names, self.sent = {}, {}
        self.instances = set()  # That came back once, and so must again.
        self.count = self.saves = self.loads = 0
        self.is_over = False
        pool = np.random.default_rng(seed)
        self.values = [pool.random((2, 4000), np.float32) for _ in range(VALUES)]

    def draw(self, dice):
        """Give parameters: a trunk and a head of those that there are."""
        size = 784 * 4 + 4 + 4 * 4 + 4
        trunk, head = dice.choice(self.values)[0], dice.choice(self.values)[1]
        return np.concatenate([trunk[:size], head[: 4 * 3 + 3]])

    def run(self, count):
        for _ in range(count):
            self.round()
        self.server.heal()
        self.check()
        self.server.kill()

    def round(self):
        self.count += 1
        way = self.ways[self.count % len(self.ways)]
        self.check()
        if way != "kill":
            self.server.kill()
            order = f"any kill {int(2 ** self.dice.uniform(0, 9))}"
            self.server.order("fsync lie 0" if self.sabotage == "lie" else order)
            if not self.server.begin():
                self.end(way)
                return
        self.write(way)
        self.end(way)

    def write(self, way):
        self.is_over = False
        writers = [Writer(self, number) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        if way == "kill" or self.sabotage == "lie":
            time.sleep(self.dice.uniform(0.01, 0.7))
        else:
            self.await_end(writers)
        self.server.process.kill()
        for writer in writers:
            writer.join(60)
            if writer.is_alive():
                raise LostError("a call has no end")
            if writer.error is not None:
                raise LostError(f"a call failed: {writer.error!r}") from writer.error

    def await_end(self, writers):
        """Wait until the order has killed the server, which may take long."""
        end = time.monotonic() + 5
        while self.server.process.poll() is None and time.monotonic() < end:
            if not any(writer.is_alive() for writer in writers):
                return
            time.sleep(0.005)

    def end(self, way):
        self.is_over = True
        self.server.kill()
        self.server.heal()
        if way == "cut":
            end_cut(self.server.state, self.server.cut, self.dice)
        if self.sabotage == "remove" and self.server.files("blobs"):
            self.dice.choice(self.server.files("blobs")).unlink()

    def found(self, server):
        found = {}
        for one in server.checkpoints():
            found.setdefault(one.name, set()).add((one.number, one.instance.digest))
        return found

    def check(self):
        """Start on what is there, and compare it with what was acknowledged."""
        if "serving" not in self.server.begin():
            raise LostError(f"the server does not start: {self.server.log()[-500:]}")
        self.check_folder()
        with self.server.connect() as server:
            found = self.found(server)
            for name in found.keys() | self.names.keys():
                known = self.names.setdefault(name, Name())
                known.check(name, found.get(name, set()))
            for name, checkpoints in found.items():
                for number, digest in sorted(checkpoints):
                    self.load(server, name, number, digest)
            self.check_instances(server)
        records = len(self.server.files("records"))
        if records != sum(map(len, found.values())) + len(self.instances):
            raise LostError(f"{records} records, of which not all are listed")

    def check_instances(self, server):
        """Look at the instances that came back, each as it was once."""
        names = {one.name for one in server.instances() if not one.ephemeral}
        if missing := self.instances - names:
            raise LostError(f"did not come back: {sorted(missing)}")
        self.instances = names
        for name in names:
            net = server.instance(name, module=False)
            digest = net.info(digest=True).digest
            sent = hashlib.sha256(net.get_params()).hexdigest()
            if self.sent.get(digest) != sent:
                raise LostError(f"{name}: came back as it never was")

    def check_folder(self):
        files = {kind: self.server.files(kind) for kind in ("blobs", "records")}
        if self.server.files("aside"):
            raise LostError(f"set aside: {self.server.files('aside')}")
        if hidden := [*self.server.state.rglob(".*")]:
            raise LostError(f"left half written: {hidden}")
        text = "".join(path.read_text() for path in files["records"])
        if unused := [path for path in files["blobs"] if path.stem not in text]:
            raise LostError(f"blobs of no record: {unused}")

    def load(self, server, name, number, digest):
        if digest not in self.sent:
            raise LostError(f"{name}: nobody sent {digest}")
        try:
            net = server.load(name, number=number, module=False)
            parameters = net.get_params()
            same = net.info(digest=True).digest == digest
        except Unavailable:
            raise
        except BackbonedError as error:
            raise LostError(f"{name}, {number}: {error}") from error
        if not same or hashlib.sha256(parameters).hexdigest() != self.sent[digest]:
            raise LostError(f"{name}, {number}: torn")
        self.loads += 1


def run(binary, count, seed, sabotage=None, ways=WAYS):
    """Run the rounds in a folder of their own; give the last line and the status."""
    folder = Path(tempfile.mkdtemp(prefix="crash-test-"))
    rounds = Rounds(binary, folder, seed, ways, sabotage)
    lost = 0
    try:
        rounds.run(count)
        shutil.rmtree(folder)
    except LostError as error:
        lost = 1
        print(f"crash-test: round {rounds.count}: {error}; {folder} is left")
    finally:
        rounds.server.kill()
    return (
        f"crash-test: {rounds.count} rounds, {rounds.saves} saves acknowledged, "
        f"{rounds.loads} loads checked, {lost} lost"
    ), lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument(
        "--sabotage",
        choices=["lie", "remove"],
        help="a disk that says it synced, or a blob that goes: the test must fail",
    )
    options = parser.parse_args()
    print(f"crash-test: seed {options.seed}", flush=True)
    line, lost = run(find_binary(), options.rounds, options.seed, options.sabotage)
    print(line)
    sys.exit(lost)


if __name__ == "__main__":
    main()
