"""A server with a state folder, on a disk that fails as a test says."""

import functools
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import backboned
from backboned.errors import Unavailable

FAULTS = Path(__file__).parents[1] / "crash" / "faults.c"


@functools.cache
def library():
    """Build the library that makes a disk fail; tests/crash/faults.c tells of it."""
    folder = tempfile.TemporaryDirectory()
    made = Path(folder.name, "faults.so")
    command = ["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", made, FAULTS]
    subprocess.run([*command, "-lpthread"], check=True)
    return folder, made


class KeptServer:
    """A server that is killed and comes back, with the folder that outlives it."""

    def __init__(self, binary, where, *options, threads=1, faulty=False, cut=False):
        self.binary, self.where = binary, Path(where).resolve()
        self.options = [f"--threads={threads}", *options]
        self.state = self.where / "state"
        self.state.mkdir(exist_ok=True)
        self.orders, self.cut = self.where / "orders", self.where / "cut"
        self.environment, self.process = dict(os.environ), None
        self.heal()
        if faulty:
            self.environment.update(
                LD_PRELOAD=str(library()[1]),
                FAULTS_FOLDER=str(self.state),
                FAULTS_ORDERS=str(self.orders),
            )
        if cut:
            self.environment["FAULTS_CUT"] = str(self.cut)

    def target(self, principal=""):
        """Give the socket of a principal that the options name, or of an admin."""
        return f"unix:{self.where}/{principal}.sock"

    def begin(self):
        """Start the program; give its first line, empty if it ended."""
        if "FAULTS_CUT" in self.environment:
            begin_cut(self.state, self.cut)
        with open(self.where / "log", "a") as log:
            self.process = subprocess.Popen(
                [self.binary, f"--listen={self.target()}"]
                + [f"--state-dir={self.state}", *self.options],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self.process.stdout.readline()

    def start(self, *connections):
        """Start it, and wait until clients of the one before have found it."""
        assert "serving" in self.begin(), self.log()
        for connection in connections:
            _await(connection)
        return self

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def end(self):
        """End it as an admin does; give its exit status."""
        process, self.process = self.process, None
        process.terminate()
        process.stdout.close()
        return process.wait(timeout=60)

    def restart(self, *connections):
        self.kill()
        return self.start(*connections)

    def connect(self, principal="", **options):
        options.setdefault("reconnect_timeout", 0)
        return backboned.connect(self.target(principal), **options)

    def log(self):
        return (self.where / "log").read_text()

    def order(self, text):
        """Let the disk fail from now on: `CALL FAULT NUMBER`."""
        new = self.where / "orders.new"
        new.write_text(text)
        os.replace(new, self.orders)

    def heal(self):
        self.order("none none 0")

    def files(self, kind):
        """Give the paths in `blobs`, `records` or `aside`, but of unfinished files."""
        return sorted((self.state / kind).glob("[!.]*"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def _await(connection):
    end = time.monotonic() + 15
    while True:
        try:
            return connection.info()
        except Unavailable:
            assert time.monotonic() < end
            time.sleep(0.02)


def begin_cut(state, cut):
    """Tell the library that all of a folder is on the disk."""
    shutil.rmtree(cut, ignore_errors=True)
    for kind in ("data", "links", "folders"):
        (cut / kind).mkdir(parents=True)
    for folder in (state, *(path for path in state.iterdir() if path.is_dir())):
        lines = []
        for path in folder.iterdir():
            inode = path.stat().st_ino
            lines.append(f"{inode} {path.name}\n")
            if path.is_file():
                shutil.copy(path, cut / "data" / str(inode))
                os.link(path, cut / "links" / str(inode))
        (cut / "folders" / _key(state, folder)).write_text("".join(lines))


def _key(state, folder):
    return "root" if folder == state else folder.name


def end_cut(state, cut, dice):
    """Make of a folder what a power cut would leave of it; `dice` decides the open.

    All that was synced stays. Of the rest, any part may have reached the disk.
    """
    made = cut / "after"
    made.mkdir()
    _end_folder(state, made, cut, dice)
    shutil.rmtree(state)
    made.rename(state)


def _end_folder(folder, made, cut, dice):
    synced = {}
    snapshot = cut / "folders" / ("root" if made.name == "after" else folder.name)
    if snapshot.exists():
        for line in snapshot.read_text().splitlines():
            inode, name = line.split(" ", 1)
            synced[name] = int(inode)
    present = {path.name: path.stat().st_ino for path in folder.iterdir()}
    for name in sorted(synced.keys() | present.keys()):
        inode = dice.choice([synced, present]).get(name)
        if inode is None:
            continue
        if (folder / name).is_dir():
            (made / name).mkdir()
            _end_folder(folder / name, made / name, cut, dice)
        else:
            link = cut / "links" / str(inode)
            now = (link if link.exists() else folder / name).read_bytes()
            (made / name).write_bytes(_end_file(now, cut / "data" / str(inode), dice))


def _end_file(now, synced, dice):
    """Give the bytes that a file has after a power cut."""
    then = synced.read_bytes() if synced.exists() else b""
    if now == then:
        return now
    return dice.choice([then, now, now[: dice.randrange(len(now) + 1)]])


def cut_power(server, seed):
    """Kill a server whose folder is watched, and cut its disk's power."""
    server.kill()
    end_cut(server.state, server.cut, random.Random(seed))
