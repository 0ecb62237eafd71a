"""Tests the users file: who may call, and what changes of it do meanwhile."""

import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import backboned
import grpc
import numpy as np
import pytest
import torch
from backboned.errors import BackbonedError, NotFound, Refused
from backboned.v1 import backbone_service_pb2 as backbone
from waiting import wait_until

IMAGES = torch.zeros(2, 1, 28, 28)

# A change of the file is noticed within this time.
NOTICED_S = 5


class Lab:
    """A server with a socket for each of its people, and their file."""

    PEOPLE = ("alice", "bob")

    def __init__(self, binary, folder):
        self.folder, self.users = folder, folder / "users.yaml"
        self.binary, self.process = binary, None

    def write(self, text):
        """Renames a new file over the users file."""
        new = self.folder / "new.yaml"
        new.write_text(text)
        os.replace(new, self.users)

    def start(self, *options):
        listen = [f"--listen={self.target(name)}" for name in ("admin", "front")]
        listen[1] += ",principal-from=backboned-principal"
        for name in self.PEOPLE:
            listen.append(f"--listen={self.target(name)},principal={name}")
        self.process = subprocess.Popen(
            [self.binary, *listen, f"--users={self.users}", "--threads=1", *options],
            stdout=subprocess.PIPE,
            stderr=open(self.folder / "log", "w"),
            text=True,
        )
        assert "serving on" in self.process.stdout.readline(), self.log()

    def target(self, name):
        return f"unix:{self.folder}/{name}.sock"

    def connect(self, name):
        return backboned.connect(self.target(name))

    def log(self):
        return (self.folder / "log").read_text()

    def await_log(self, words):
        end = time.monotonic() + 30
        while words not in self.log():
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process.stdout.close()


@pytest.fixture
def lab(binary, tmp_path):
    lab = Lab(binary, tmp_path)
    yield lab
    lab.stop()


def test_the_file_says_who_may_call_and_what(lab):
    lab.write("users: {alice: {rights: infer}, carol: {rights: admin}}")
    lab.start("--instance=seq-mnist")
    with lab.connect("alice") as alice:
        net = alice.instance("seq-mnist")
        net.eval()
        assert net(IMAGES).shape == (2, 10)
        assert (alice.info().rights, alice.info().refusals) == ("infer", {})
        with pytest.raises(Refused, match="alice has the right to infer") as refused:
            alice.create("seq-mnist")
        assert refused.value.reason == "NOT_PERMITTED"
    with pytest.raises(Refused, match='"bob" is no user of this server'):
        lab.connect("bob")
    with lab.connect("admin") as admin:
        admin.create("seq-mnist", name="mine")
        assert admin.info().rights == "admin"
        assert admin.info().refusals == {"NOT_PERMITTED": 2}
    with grpc.insecure_channel(lab.target("front")) as channel:
        call = channel.unary_unary("/backboned.v1.InstanceService/ListInstances")
        listed = call(b"", timeout=10, metadata=[("backboned-principal", "carol")])
        assert b"mine" in listed


def test_a_right_that_is_given_counts_at_once(lab):
    lab.write("users: {alice: {rights: infer}}")
    lab.start()
    with lab.connect("alice") as alice:
        with pytest.raises(Refused):
            alice.create("seq-mnist")
        lab.write("users: {alice: {rights: train}, bob: {quota: 0.25, share: 2}}")
        lab.await_log("users file read: 2 users")
        net = alice.create("seq-mnist")
        net(IMAGES).sum().backward()
    with lab.connect("bob") as bob:
        assert bob.info().limits["principal_quota"] == 0.25


def test_a_right_that_is_withdrawn_is_gone_and_the_stream_moves(lab):
    lab.write("users: {alice: {}}")
    lab.start()
    with lab.connect("alice") as alice:
        net = alice.create("seq-mnist", module=False, name="net")
        net.set_params(net.get_params())
        lab.write("users: {alice: {rights: infer}}")
        lab.await_log("users file read: 1 users")
        with pytest.raises(Refused, match="needs the right to train"):
            net.set_params(net.get_params())
        assert len(net.forward(IMAGES.numpy()).outputs["out"]) == 2


def test_who_is_removed_is_out(lab):
    lab.write("users: {alice: {}, bob: {}}")
    lab.start()
    with lab.connect("alice") as alice, lab.connect("bob") as bob:
        nets = [server.create("seq-mnist", module=False) for server in (alice, bob)]
        lab.write("users: {bob: {}}")
        end = time.monotonic() + NOTICED_S
        with pytest.raises(Refused, match='"alice" is no user'):
            while time.monotonic() < end:
                nets[0].get_params()
        lab.await_log('"event":"user removed","principal":"alice"')
        with pytest.raises(Refused):
            nets[0].get_params()
        nets[1].get_params()


@pytest.fixture
def silence():
    """Gives the requests of a stream that sends none until the test's end."""
    ended = threading.Event()
    yield iter(ended.wait, True)
    ended.set()


def test_the_stream_of_who_is_removed_ends(lab, silence):
    """Also while no call comes by it."""
    lab.write("users: {alice: {}}")
    lab.start()
    with grpc.insecure_channel(lab.target("alice")) as channel:
        stream = channel.stream_stream("/backboned.v1.BackboneService/Calls")
        began = time.monotonic()
        answers = stream(silence, timeout=30)
        lab.write("users: {}")
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        assert ended.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert time.monotonic() - began < NOTICED_S + 2


def test_calls_under_way_of_who_is_removed_end_as_refused(lab):
    """Work that has begun goes on to its end; the calls behind it do not begin."""
    lab.write("users: {alice: {}}")
    lab.start()
    x = np.zeros((64, 3, 32, 32), np.float32)
    with lab.connect("alice") as alice, ThreadPoolExecutor(12) as pool:
        net = alice.create(architecture="resnet18", num_classes=10, module=False)
        calls = [pool.submit(net.forward, x) for _ in range(12)]
        calls[0].result(60)
        lab.write("users: {}")
        began = time.monotonic()
        errors = [call.exception(60) for call in calls]
        assert time.monotonic() - began < NOTICED_S + 10
    refused = [error for error in errors if error is not None]
    assert refused
    for error in refused:
        assert isinstance(error, Refused), repr(error)
        assert '"alice" is no user of this server' in str(error)


def test_a_client_opens_another_stream_before_its_token_expires(lab, silence):
    lab.write("users: {carol: {token: 2}}")
    lab.start()
    with grpc.insecure_channel(lab.target("front")) as channel:
        stream = channel.stream_stream("/backboned.v1.BackboneService/Calls")
        metadata = [
            ("backboned-principal", "carol"),
            ("backboned-token-expires", str(int(time.time()) + 32)),
        ]
        answers = stream(silence, timeout=30, metadata=metadata)
        told = backbone.CallsResponse.FromString(next(answers))
        assert told.notice == backbone.NOTICE_MOVE
        assert list(answers) == []


def test_a_tokens_stream_ends_with_the_token(lab, silence):
    lab.write("users: {carol: {token: 2}}")
    lab.start()
    with grpc.insecure_channel(lab.target("front")) as channel:
        stream = channel.stream_stream("/backboned.v1.BackboneService/Calls")
        ends = int(time.time()) + 2
        metadata = [
            ("backboned-principal", "carol"),
            ("backboned-token-serial", "2"),
            ("backboned-token-expires", str(ends)),
        ]
        with pytest.raises(grpc.RpcError) as ended:
            next(stream(silence, timeout=30, metadata=metadata))
        assert ended.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert "the token of carol expired at" in ended.value.details()
        assert ends <= time.time() < ends + NOTICED_S


def test_a_wrong_file_changes_nothing(lab):
    lab.write("users: {alice: {}}")
    lab.start()
    with lab.connect("alice") as alice:
        lab.write("users:\n  alice: {right: train}")
        lab.await_log("the users stay as they were")
        assert 'users.yaml: alice: line 2: there is no "right"; did' in lab.log()
        os.unlink(lab.users)
        lab.await_log("there is no such file")
        alice.create("seq-mnist")
    lab.process.send_signal(signal.SIGHUP)
    time.sleep(1.5)
    assert lab.process.poll() is None


def test_sighup_reads_the_file(lab):
    lab.write("users: {alice: {}}")
    lab.start()
    assert "users file read" not in lab.log()
    lab.process.send_signal(signal.SIGHUP)
    lab.await_log("users file read: 1 users")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no such file"),
        ("users: {alice: {rights: root}}", "they are infer, train or admin"),
        ("users: {local: {}}", "is the server's own word"),
    ],
)
def test_a_wrong_file_at_the_start_is_one_sentence(binary, tmp_path, text, words):
    path = tmp_path / "users.yaml"
    if text is not None:
        path.write_text(text)
    ended = subprocess.run(
        [binary, f"--users={path}", f"--listen=unix:{tmp_path}/s"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"backboned: --users {path}: ") and words in line
    assert not (tmp_path / "s").exists()


def test_refusals_and_changes_are_recorded(lab):
    lab.write("users: {alice: {rights: infer}}")
    record = lab.folder / "audit.jsonl"
    lab.start(f"--audit-log={record}")
    with lab.connect("alice") as alice, pytest.raises(Refused):
        alice.create("seq-mnist")
    with grpc.insecure_channel(lab.target("front")) as channel:
        call = channel.unary_unary("/backboned.v1.InstanceService/GetServer")
        secret = [("authorization", "Bearer secret")]
        with pytest.raises(grpc.RpcError):
            call(b"", timeout=10, metadata=secret)
    with pytest.raises(Refused):
        lab.connect("bob")
    lab.write("users: {bob: {}}")
    lab.await_log("users file read: 1 users")
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert all(line["time"] for line in lines)
    seen = [
        (line["event"], line.get("principal", ""), line.get("method", ""))
        for line in lines
    ]
    assert seen == [
        ("user added", "alice", ""),
        ("call refused", "alice", "CreateInstance"),
        ("call refused", "", "GetServer"),
        ("call refused", "bob", "GetServer"),
        ("user removed", "alice", ""),
        ("user added", "bob", ""),
    ]
    assert "secret" not in record.read_text()


def test_users_beside_a_port_are_warned_of(binary, tmp_path):
    """Everybody who reaches it is an admin, whatever the file says."""
    users = tmp_path / "users.yaml"
    users.write_text("users: {alice: {quota: 0.5}}")
    with subprocess.Popen(
        [binary, f"--users={users}", "--listen=127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert "serving on" in process.stdout.readline()
        process.terminate()
        log = process.communicate(timeout=60)[1]
    assert "is the principal local, an admin" in log
    assert "have no effect" not in log


def test_the_level_of_the_log_is_not_that_of_the_audit_log(lab):
    lab.write("users: {alice: {rights: infer}}")
    record, config = lab.folder / "audit.jsonl", lab.folder / "config.yaml"
    config.write_text("")
    lab.start(f"--audit-log={record}", f"--config={config}")
    config.write_text("log-level: error")
    lab.process.send_signal(signal.SIGHUP)
    lab.await_log("log-level is now error")
    with lab.connect("alice") as alice, pytest.raises(Refused):
        alice.create("seq-mnist")
    wait_until(lambda: "CreateInstance" in record.read_text())


def test_an_audit_log_that_cannot_be_written_ends_the_start(binary, tmp_path):
    ended = subprocess.run(
        [binary, f"--audit-log={tmp_path}", f"--listen=unix:{tmp_path}/s"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("backboned: --audit-log ")


def test_what_one_removes_is_gone_for_her_only(lab):
    """Two people with equal names of everything have two of everything."""
    lab.write("users: {alice: {}, bob: {}}")
    lab.start()
    with lab.connect("alice") as alice, lab.connect("bob") as bob:
        for server in (alice, bob):
            server.create("seq-mnist", name="net", module=False)
        alice.instance("net", False).delete()
        with pytest.raises(NotFound):
            alice.instance("net", False)
        bob.instance("net", False).get_params()
        with pytest.raises(BackbonedError):
            alice.instance("bob/net", False)
