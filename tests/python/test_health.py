"""grpc.health.v1 by plain gRPC: of the server, and of each instance."""

import queue
import threading

import grpc
import pytest
from backboned.errors import FailedPrecondition
from kept_server import KeptServer
from waiting import wait_until

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


@pytest.fixture
def lab(binary, tmp_path):
    """Gives a server with a socket for each of two people."""
    people = [f"--listen=unix:{tmp_path}/{name}.sock,principal={name}" for name in "ab"]
    with KeptServer(binary, tmp_path, *people) as lab:
        yield lab.start()


def _request(service):
    name = service.encode()
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def _status(response):
    assert response[:1] == b"\x08" and len(response) == 2
    return response[1]


class Health:
    """The methods of grpc.health.v1.Health, by an own connection."""

    def __init__(self, target):
        self.channel = grpc.insecure_channel(target)
        path = "/grpc.health.v1.Health/"
        self._check = self.channel.unary_unary(path + "Check", _request, _status)
        self._watch = self.channel.unary_stream(path + "Watch", _request, _status)

    def check(self, service=""):
        return self._check(service, timeout=60)

    def watch(self, service=""):
        return Watch(self._watch(service))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


class Watch:
    """A watcher: a thread reads what it is told."""

    def __init__(self, call):
        self.call, self.told = call, queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for status in self.call:
                self.told.put(status)
        except grpc.RpcError as error:
            self.told.put(error.code())

    def next(self):
        return self.told.get(timeout=60)

    def has_more(self):
        return not self.told.empty()


def test_an_instance_is_there_for_those_who_may_read_it(lab):
    with Health(lab.target("a")) as a, Health(lab.target("b")) as b:
        own, bare, others = a.watch("net"), b.watch("net"), b.watch("a/net")
        assert [watch.next() for watch in (own, bare, others)] == [UNKNOWN] * 3
        with lab.connect("a") as client:
            net = client.create("seq-mnist", name="net", seed=0, module=False)
            assert own.next() == SERVING
            assert a.check("net") == a.check("a/net") == SERVING
            for name in ("net", "a/net", "a/none"):
                with pytest.raises(grpc.RpcError) as unseen:
                    b.check(name)
                assert unseen.value.code() == grpc.StatusCode.NOT_FOUND
            net.update(shared=True)
            assert others.next() == SERVING
            assert b.check("a/net") == SERVING
            net.delete()
        assert (own.next(), others.next()) == (UNKNOWN, UNKNOWN)
        with lab.connect("b") as client:
            client.create("seq-mnist", name="net", seed=0, module=False)
        assert bare.next() == SERVING
        with lab.connect("a") as client:
            net = client.create("seq-mnist", name="net", seed=0, module=False)
            net.update(shared=True)
        assert (own.next(), others.next()) == (SERVING, SERVING)  # Nothing before.


def test_a_drain_is_told_and_waits_for_no_watcher(lab):
    with Health(lab.target("a")) as a, Health(lab.target()) as admin:
        watches = [a.watch() for _ in range(20)] + [admin.watch("a/n")]
        with lab.connect("a") as client:
            client.create("seq-mnist", name="n", seed=0, module=False)
        watches.append(a.watch("n"))
        assert [watch.next() for watch in watches[:20]] == [SERVING] * 20
        wait_until(lambda: watches[20].next() == SERVING)
        assert watches[21].next() == SERVING
        assert lab.end() == 0
        for watch in watches:
            assert (watch.next(), watch.next()) == (
                NOT_SERVING,
                grpc.StatusCode.UNAVAILABLE,
            )


def test_to_ask_wakes_no_sleeper(lab):
    with lab.connect("a") as client:
        client.create("seq-mnist", name="net", seed=0, module=False)
    assert lab.end() == 0
    lab.start()
    with Health(lab.target("a")) as a, lab.connect("a") as client:
        watch = a.watch("net")
        idle = client.instance("net", module=False).info().idle
        assert a.check("net") == watch.next() == SERVING
        now = client.instance("net", module=False).info()
        assert now.asleep and now.idle >= idle
        client.instance("net", module=False).get_params()
        assert not client.instance("net", module=False).info().asleep
        assert not watch.has_more()


def test_a_file_that_could_not_be_read_is_told(lab):
    with lab.connect("a") as client:
        client.create("seq-mnist", name="net", seed=0, module=False)
    assert lab.end() == 0
    blob = max(lab.files("blobs"), key=lambda path: path.stat().st_size)
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    lab.start()
    with Health(lab.target("a")) as a, lab.connect("a") as client:
        watch = a.watch("net")
        assert watch.next() == SERVING  # Nobody has read it yet.
        with pytest.raises(FailedPrecondition):
            client.instance("net", module=False).get_params()
        assert watch.next() == NOT_SERVING
        assert a.check("net") == NOT_SERVING and a.check() == SERVING
        blob.write_bytes(whole)
        client.instance("net", module=False).get_params()
        assert watch.next() == SERVING
        assert a.check("net") == SERVING


def test_a_watcher_that_goes_leaves_its_place(binary, tmp_path):
    with (
        KeptServer(binary, tmp_path, "--max-streams=1") as lab,
        Health(lab.start().target()) as health,
    ):
        for _ in range(50):
            watch = wait_until(lambda: _admitted(health.watch()))
            assert health.watch().next() == grpc.StatusCode.RESOURCE_EXHAUSTED
            watch.call.cancel()


def _admitted(watch):
    return watch if watch.next() == SERVING else None
