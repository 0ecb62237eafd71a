"""The usage that a server keeps: by user, network and label."""

import csv
import datetime
import io
import json
import sqlite3
import subprocess
import threading

import backboned
import numpy as np
import pytest
from backboned import CrossEntropy
from backboned.errors import InvalidArgument
from backboned.types import ParameterGroup
from kept_server import KeptServer
from waiting import wait_until

RESNET = {"architecture": "resnet18", "num_classes": 10, "num_filters": 8}
X = np.random.default_rng(0).random((8, 3, 32, 32), dtype=np.float32)
Y = np.arange(8) % 10
HOUR = datetime.timedelta(hours=1)


def of(server, by="user", **options):
    """Give the rows of what is used, by what they are of."""
    words = [by] if isinstance(by, str) else by
    fields = ["principal" if word == "user" else word for word in words]
    report = server.usage(by, **options)
    return {tuple(getattr(row, f) for f in fields): row for row in report.rows}


def after(server, calls, instance):
    """Give the row of an instance once so many calls on it have been counted."""

    def row():
        found = of(server, "instance").get((instance,))
        return found if found is not None and found.calls >= calls else None

    return wait_until(row)


def sockets(folder, names):
    """Give options of a server: a socket for each principal."""
    return [f"--listen=unix:{folder}/{name}.sock,principal={name}" for name in names]


@pytest.fixture
def kept(binary, tmp_path):
    with KeptServer(binary, tmp_path, *sockets(tmp_path, "ab"), faulty=True) as kept:
        yield kept.start()


@pytest.mark.cpu
def test_shares_add_up_to_the_devices_time(binary, tmp_path):
    names = ["alice", "bob", "carol"]
    options = [*sockets(tmp_path, names), "--max-delay-us=2000"]
    options.append("--instance=seq-cifar10=common")
    with KeptServer(binary, tmp_path, *options) as kept:
        with kept.start().connect() as admin:
            before = admin.usage().device_busy

            def work(name, label):
                with kept.connect(name, label=label) as server:
                    net = server.create(**RESNET, module=False, name=label)
                    net.configure_optimizer("sgd", [ParameterGroup(lr=0.1)])
                    for _ in range(4):
                        net.train_step(X, CrossEntropy(Y))
                        net.forward(X)
                    common = server.instance("common", module=False)
                    for _ in range(6):  # Of all clients, in batches.
                        common.forward(X[:2], allow_merge=True)

            threads = [
                threading.Thread(target=work, args=(name, f"{name}{run}"))
                for name in names
                for run in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            after(admin, 36, "server/common")
            for name in names:
                for run in range(2):
                    after(admin, 10, f"{name}/{name}{run}")
            report = admin.usage("user")
            users = {row.principal: row for row in report.rows}
            assert {*names} <= {*users}
            assert admin.info().devices[0].batches.merged_forwards > 0
            busy = report.device_busy - before
            total = sum(row.device_time for row in report.rows)
            assert total == pytest.approx(busy, rel=0.02)
            # Rows of all kinds are of the same calls.
            for by in ("instance", "label", ("user", "label"), ()):
                rows = of(admin, by).values()
                assert sum(row.flops for row in rows) == sum(
                    row.flops for row in users.values()
                )
            labels = of(admin, ("user", "label"))
            assert all((name, f"{name}1") in labels for name in names)
            # Equal work takes equally many operations, alone or in a batch.
            assert len({users[name].flops for name in names}) == 1


def test_a_call_has_its_bytes_and_time(server):
    net = server.create(**RESNET, module=False)
    net.forward(X)
    row = after(server, 2, net.address)
    assert row.instance_uid == net.uid
    assert row.received_bytes > X.nbytes and row.sent_bytes > 8 * 10 * 4
    assert 0 < row.device_time <= server.usage().device_busy
    assert row.end - row.begin in (HOUR, 2 * HOUR)
    assert row.begin.minute == row.begin.second == 0


def test_spans_of_time(server):
    server.info()
    wait_until(lambda: server.usage(()).rows)
    now = datetime.datetime.now(datetime.timezone.utc)
    assert server.usage((), since=2 * HOUR).rows
    assert server.usage((), since=now - 2 * HOUR, until=now + HOUR).rows
    assert not server.usage((), until=2 * HOUR).rows
    assert not server.usage((), since=now + 2 * HOUR).rows
    with pytest.raises(InvalidArgument, match="no by 'day'; it is 'user' or"):
        server.usage("day")
    with pytest.raises(InvalidArgument, match="since is after until"):
        server.usage(since=HOUR, until=2 * HOUR)


def test_more_rows_than_a_page_has(server):
    for i in range(105):
        with backboned.connect(server.target, label=f"many-{i:03}") as other:
            other.info()
    labels = wait_until(
        lambda: (found := [*of(server, "label")]) and (("many-104",) in found) and found
    )
    assert [name for (name,) in labels if name.startswith("many-")] == [
        f"many-{i:03}" for i in range(105)
    ]


@pytest.mark.cpu
def test_everybody_sees_their_own(kept):
    with kept.connect("a") as a, kept.connect("b") as b, kept.connect() as admin:
        for server in (a, b):
            server.create(**RESNET, module=False, name="net").forward(X)
        after(admin, 2, "a/net")
        after(admin, 2, "b/net")
        assert {*of(a)} == {("a",)} and {*of(b)} == {("b",)}
        assert ("b/net",) not in of(a, "instance")
        assert {("a",), ("b",), ("local",)} <= {*of(admin)}


@pytest.mark.cpu
def test_a_kill_loses_the_last_seconds_at_most(kept):
    with kept.connect("a", reconnect_timeout=30) as server:
        net = server.create(**RESNET, module=False, name="net")
        net.forward(X)
        first = after(server, 2, "a/net")
        database = kept.state / "usage.sqlite"

        def written():
            with sqlite3.connect(database) as connection:
                return connection.execute(
                    "SELECT sum(flops) FROM usage WHERE instance = 'a/net'"
                ).fetchone()[0]

        wait_until(lambda: written() == first.flops)
        kept.restart(server)
        row = of(server, "instance")["a/net",]
        assert (row.flops, row.instance_uid) == (first.flops, first.instance_uid)
        assert row.calls >= first.calls
        assert server.usage().device_busy >= row.device_time > 0
        net.forward(X)
        assert wait_until(
            lambda: of(server, "instance")["a/net",].flops == 2 * first.flops
        )
        # At its end a server writes all.
        assert kept.end() == 0
        assert written() == 2 * first.flops


@pytest.mark.cpu
def test_a_full_disk_delays_what_is_written(kept):
    with kept.connect("a", reconnect_timeout=30) as server:
        net = server.create(**RESNET, module=False, name="net")
        kept.order("pwrite full 0")
        net.forward(X)
        row = after(server, 2, "a/net")
        warning = "cannot write usage.sqlite of --state-dir, and try again"
        wait_until(lambda: warning in kept.log())
        net.forward(X)
        assert after(server, 3, "a/net").flops == 2 * row.flops
        kept.heal()
        again = "usage.sqlite of --state-dir can be written again"
        wait_until(lambda: again in kept.log())
        assert kept.log().count(warning) == 1
        kept.restart(server)
        assert of(server, "instance")["a/net",].flops == 2 * row.flops


@pytest.mark.cpu
def test_a_damaged_file_is_set_aside(kept):
    with kept.connect(reconnect_timeout=30) as server:
        kept.kill()
        (kept.state / "usage.sqlite").write_bytes(b"torn" * 1000)
        for end in ("-wal", "-shm"):
            (kept.state / f"usage.sqlite{end}").unlink(missing_ok=True)
        kept.start(server)
        assert "set usage.sqlite of --state-dir aside as usage-" in kept.log()
        (aside,) = kept.state.glob("usage-*.sqlite")
        assert aside.read_bytes() == b"torn" * 1000
        server.create(**RESNET, module=False, name="net")
        after(server, 1, "local/net")


@pytest.mark.cpu
def test_a_file_of_a_newer_server_is_refused(kept):
    assert kept.end() == 0
    with sqlite3.connect(kept.state / "usage.sqlite") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    assert not kept.begin()
    assert kept.process.wait() == 1
    assert "has format 2, of a newer server; this one reads 1" in kept.log()


@pytest.mark.cpu
def test_backbonectl_prints_it(kept, backbonectl):
    def run(*arguments, principal="a"):
        return subprocess.run(
            [backbonectl, "usage", f"--server={kept.target(principal)}", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )

    with kept.connect("a", label="run") as server:
        net = server.create(**RESNET, module=False, name="net")
        net.forward(X)
        row = after(server, 2, "a/net")
    table = run().stdout.splitlines()
    assert table[0].split() == ["USER", "CALLS", "DEVICE", "FLOP", "RECEIVED", "SENT"]
    assert table[1].startswith("a ") and len(table) == 3
    assert table[2].startswith("devices worked ") and table[2].endswith(" in all")

    listed = run("--by=user,instance", "--by=label", "--since=2h", "--csv").stdout
    rows = {r["instance"]: r for r in csv.DictReader(io.StringIO(listed))}
    assert rows["a/net"]["label"] == "run" and rows["a/net"]["principal"] == "a"
    assert rows["a/net"]["instance_uid"] == row.instance_uid
    assert int(rows["a/net"]["flops"]) == row.flops > 0
    assert float(rows["a/net"]["device_seconds"]) == pytest.approx(row.device_time)

    answer = json.loads(run("--by=instance", "--json").stdout)
    (found,) = [r for r in answer["rows"] if r["instance"] == "a/net"]
    assert found["flops"] == row.flops and found["calls"] == str(row.calls)

    assert len(run("--until=2h").stdout.splitlines()) == 2  # No row.
    for wrong, said in {
        "--since=soon": "--since soon is no time; it is like 30d",
        "--by=day": "day",
        "--csv --json": "--json",
    }.items():
        ended = run(*wrong.split())
        assert (ended.returncode, ended.stdout) == (2, "")
        assert said in ended.stderr
    assert run("--server=unix:/nowhere", "--timeout=0.2").returncode != 0
