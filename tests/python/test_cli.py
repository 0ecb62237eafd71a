"""backbonectl: instances, parameters, checkpoints and health, on a real server."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import safetensors.numpy
from backbonectl_runs import Control
from kept_server import KeptServer
from relay import Relay
from tls_front import Authority, TlsFront

EXIT = {
    **{"failed": 1, "usage": 2, "unreachable": 3, "missing": 4, "not allowed": 5},
    **{"conflict": 6, "exhausted": 7, "interrupted": 130},
}
SMALL = ("--architecture", "mnistmlp", "--arg", "num_classes=3") + (
    *("--arg", "mlp_hidden_size=4"),
)
RESNET = ("--architecture", "resnet18", "--arg", "num_classes=10") + (
    *("--arg", "num_filters=4"),
)


@pytest.fixture(scope="module")
def kept(binary, tmp_path_factory):
    """A server with a state folder, one for all tests of this file."""
    folder = tmp_path_factory.mktemp("server")
    options = ("--max-instances=64", f"--listen=unix:{folder}/bob.sock,principal=bob")
    with KeptServer(binary, folder, *options) as kept:
        yield kept.start()


@pytest.fixture
def ctl(backbonectl, kept, tmp_path):
    """Runs the program; the test's instances go with it."""
    control = Control(backbonectl, kept.target(), tmp_path)
    yield control
    for instance in control.json("ls")["instances"]:
        control("rm", "--yes", f"{instance['owner']}/{instance['name']}")


@pytest.fixture
def server(kept):
    with kept.connect() as server:
        yield server


def rows_of(table):
    """Give the rows of a table by its columns' names."""
    head, *lines = table.splitlines()
    names = head.split()
    rows = [re.split("  +", line) for line in lines]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_what_is_made_is_listed(ctl):
    assert ctl("ls").split()[:3] == ["OWNER", "NAME", "NETWORK"]
    assert ctl("create", "seq-mnist", "--name", "a", "--seed", "0") == "a\n"
    (row,) = rows_of(ctl("ls"))
    assert row["OWNER"] == "local"
    assert (row["NAME"], row["NETWORK"], row["DEVICE"]) == ("a", "seq-mnist", "cpu")
    assert (row["PARAMETERS"], row["VERSION"], row["MEMORY"]) == (
        "89610",
        "1",
        "358 kB",
    )
    assert re.fullmatch(r"\d+ s", row["IDLE"])
    (listed,) = ctl.json("ls")["instances"]
    assert (listed["benchmark"], listed["owner"]) == ("seq-mnist", "local")
    assert listed["memory_bytes"] == str(89610 * 4)
    assert ctl("ls", "--names") == "a\n"
    assert ctl("rm", "a") == "deleted a\n"
    assert ctl("ls", "--names") == ""


def test_options_of_create_reach_the_server(ctl, server):
    options = ("--dtype", "float64", "--seed", "7", "--frozen", "fc1.*", "--shared")
    ctl("create", *SMALL, "--name", "a", *options)
    made = ctl.json("show", "a")
    assert made["dtype"] == "DATA_TYPE_FLOAT64"
    assert (made["settings"]["shared"], made["settings"]["read_only"]) == (True, False)
    assert made["settings"]["frozen"] == ["fc1.*"]
    small = {"architecture": "mnistmlp", "num_classes": 3, "mlp_hidden_size": 4}
    twin = server.create(**small, seed=7, dtype="float64", module=False)
    ours = server.instance("a", module=False).get_params()
    np.testing.assert_array_equal(ours, twin.get_params())
    assert ctl("create", *SMALL, "--name", "b", "--read-only") == "b\n"
    assert rows_of(ctl("ls"))[1]["AGE"]
    assert "read-only" in ctl("show", "b")


def test_a_name_is_made_up_that_stays(ctl):
    """An unnamed instance would die with the program."""
    name = ctl("create", "seq-mnist").strip()
    assert name.startswith("seq-mnist-")
    assert ctl.json("show", name)["ephemeral"] is False


def test_exist_ok(ctl):
    ctl("create", *SMALL, "--name", "a")
    assert ctl.json("create", *SMALL, "--name", "a", "--exist-ok")["existed"] is True
    assert ctl.json("create", *SMALL, "--name", "b", "--exist-ok")["existed"] is False


def test_show_tells_the_layout(ctl):
    ctl("create", *SMALL, "--name", "a")
    shown = ctl("show", "a", "--layout", "--digest")
    assert "architecture   mnistmlp(mlp_hidden_size=4, num_classes=3)\n" in shown
    # 784 x 4 and 4, 4 x 4 and 4, 4 x 3 and 3.
    assert "parameters     3175 in 6 tensors\n" in shown
    assert "parameter  fc2.weight         [4, 4]      3140" in shown
    bare = ctl.json("show", "a")
    assert "layout" not in bare
    assert bare["digest"] == ""
    full = ctl.json("show", "a", "--layout", "--digest")
    assert full["layout"]["parameter_elements"] == "3175"
    assert full["digest"] in shown


def test_clones(ctl, server):
    ctl("create", *SMALL, "--name", "a", "--frozen", "fc1.*")
    assert ctl("clone", "a", "b", "--shared") == "b\n"
    assert ctl("clone", "a", "c", "--num-classes", "5", "--seed", "1") == "c\n"
    settings = ctl.json("show", "b")["settings"]
    assert (settings["shared"], settings["frozen"]) == (True, ["fc1.*"])
    a, b = (server.instance(n, module=False).get_params() for n in "ab")
    np.testing.assert_array_equal(a, b)
    assert "num_classes=5" in ctl("show", "c")
    assert "exists already" in ctl.refuses(EXIT["conflict"], "clone", "a", "b")
    ctl.refuses(EXIT["missing"], "clone", "nobody", "d")


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("usage", (), "A subcommand is required"),
        ("usage", ("ls", "--no-such"), "--no-such; see backbonectl ls --help"),
        ("usage", ("show",), "INSTANCE is required; see backbonectl show --help"),
        ("usage", ("create",), "name a BENCHMARK, or an --architecture"),
        ("usage", ("create", "seq-mnist", "--architecture", "vit"), "not both"),
        ("usage", ("create", *SMALL, "--arg", "x"), '--arg "x" is no NAME=VALUE'),
        ("usage", ("create", *SMALL, "--dtype", "int8"), "--dtype"),
        ("usage", ("create", *SMALL, "--seed", "much"), "--seed"),
        ("usage", ("create", *SMALL, "--device", "tpu"), "tpu"),
        ("usage", ("create", *SMALL, "--name", "A!"), "A!"),
        ("missing", ("create", "seq-mnis"), "did you mean seq-mnist?"),
        ("missing", ("create", "--architecture", "resnet17"), "did you mean resnet1"),
        ("missing", ("create", *SMALL, "--weights", "w"), "w"),
        ("missing", ("show", "nobody"), 'no instance "nobody"'),
        ("missing", ("rm", "nobody"), 'no instance "nobody"'),
        ("missing", ("params", "get", "nobody", "-o", "f"), 'no instance "nobody"'),
        ("missing", ("params", "set", "nobody", "f"), 'no instance "nobody"'),
        ("missing", ("checkpoint", "save", "nobody"), 'no instance "nobody"'),
        ("missing", ("checkpoint", "load", "nothing"), 'no checkpoint "nothing"'),
        ("missing", ("checkpoint", "rm", "nothing"), 'no checkpoint "nothing"'),
        ("missing", ("health", "--instance", "nobody"), 'no instance "nobody"'),
        ("usage", ("checkpoint",), "A subcommand is required"),
        ("usage", ("checkpoint", "save", "a", "--keep", "0"), "--keep"),
        ("usage", ("params", "get", "a"), "--output is required"),
        ("usage", ("top", "--interval", "0"), "--interval"),
        ("usage", ("completion", "tcsh"), "bash,zsh,fish"),
        ("usage", ("ls", "--server", "a:1", "--connection", "f"), "--connection"),
        ("unreachable", ("ls", "--connection", "no.yaml"), "no.yaml"),
    ],
)
def test_a_mistake_is_one_sentence(ctl, kind, arguments, words):
    assert words in ctl.refuses(EXIT[kind], *arguments)


def test_several_are_deleted_and_the_others_named(ctl):
    for name in "ab":
        ctl("create", *SMALL, "--name", name)
    ended = ctl.run("rm", "a", "x", "b", "y")
    assert (ended.returncode, ended.stdout) == (4, "deleted a\ndeleted b\n")
    assert sorted(ended.stderr.splitlines()) == [
        f'backbonectl: no instance "{name}"' for name in "xy"
    ]
    ctl("create", *SMALL, "--name", "a")
    assert ctl.json("rm", "a") == {"deleted": ["a"]}


def test_rm_asks_on_a_terminal(ctl):
    def answered(text, *options):
        master, slave = pty.openpty()
        with open(slave, "rb") as terminal:
            command = ctl.command("rm", "a", *options)
            process = subprocess.Popen(
                *(command, -1, None, terminal, subprocess.PIPE, subprocess.PIPE),
                env=ctl.environment,
            )
            os.write(master, text)
            out, err = process.communicate(timeout=60)
            os.close(master)
        return process.returncode, out.decode(), err.decode()

    ctl("create", *SMALL, "--name", "a")
    question = "delete a? [y/N] "
    no = f"{question}backbonectl: nothing is deleted\n"
    assert answered(b"n\n") == (1, "", no)
    assert answered(b"\n") == (1, "", no)
    assert answered(b"y\n") == (0, "deleted a\n", question)
    ctl("create", *SMALL, "--name", "a")
    assert answered(b"", "--yes") == (0, "deleted a\n", "")


def test_a_file_of_parameters_is_a_state_dict(ctl, server, tmp_path):
    ctl("create", *RESNET, "--name", "a", "--seed", "1")
    assert "version 1\n" in ctl("params", "get", "a", "-o", "a.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    net = server.instance("a", module=False)
    names = [p.name for p in net.layout.parameters]
    flat = np.concatenate([found[name].ravel() for name in names])
    np.testing.assert_array_equal(flat, net.get_params())
    for buffer, value in zip(
        net.layout.buffers, net.get_buffers().values(), strict=True
    ):
        np.testing.assert_array_equal(found[buffer.name], value)
    assert len(found) == len(names) + len(net.layout.buffers)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.safetensors"]


def test_a_server_takes_such_a_file(backbonectl, start, tmp_path):
    server = start(options=(f"--weights-dir={tmp_path}",))
    control = Control(backbonectl, server.target, tmp_path)
    control("create", *RESNET, "--name", "a", "--seed", "1")
    control("params", "get", "a", "-o", "trunk.safetensors")
    control("create", *RESNET, "--name", "b", "--weights", "trunk")
    a, b = (control.json("show", name, "--digest")["digest"] for name in "ab")
    assert a == b


def test_parameters_go_to_another_instance(ctl, tmp_path):
    ctl("create", *RESNET, "--name", "a", "--seed", "1")
    ctl("create", *RESNET, "--name", "b", "--seed", "2")
    ctl("params", "get", "a", "-o", "f")
    said = ctl("params", "set", "b", "f")
    assert said == "set 62 parameters and 60 buffers of b, version 2.2\n"
    a, b = (ctl.json("show", name, "--digest")["digest"] for name in "ab")
    assert a == b
    version = ctl.json("params", "set", "b", "f")
    assert (version["params"], version["buffers"]) == ("3", "3")


def test_parts_of_a_file(ctl, server, tmp_path):
    """The tensors may be in any order, under any of their names, and of half floats."""
    ctl("create", *SMALL, "--name", "a")
    file = tmp_path / "f"
    net = server.instance("a", module=False)
    before = net.get_params()
    bias = np.arange(4, dtype=np.float16)
    classifier = np.full((3, 4), 0.5, np.float16)
    tensors = {"net.1.weight": classifier, "fc2.bias": bias}
    safetensors.numpy.save_file({**tensors, "other": bias}, file)
    said = ctl.refuses(EXIT["usage"], "params", "set", "a", file)
    assert "the file lacks fc1.weight, fc1.bias, fc2.weight and 1 more" in said
    assert "the instance has no other; --partial takes what fits" in said
    assert ctl.json("show", "a")["version"]["params"] == "1"
    said = ctl("params", "set", "a", file, "--partial")
    assert said == "set 2 parameters and 0 buffers of a, version 2\n"
    expected = before.copy()
    expected[3156:3160] = bias
    expected[3160:3172] = classifier.ravel()
    np.testing.assert_array_equal(net.get_params(), expected)


def test_a_file_that_does_not_fit(ctl, tmp_path):
    ctl("create", *SMALL, "--name", "a")
    file = tmp_path / "f"

    def refused(code="usage"):
        return ctl.refuses(EXIT[code], "params", "set", "a", file, "--partial")

    assert "No such file" in refused("missing")
    file.write_text("a diary of a network")
    assert "f: the header has" in refused()
    safetensors.numpy.save_file({"fc2.bias": np.zeros(3, np.float32)}, file)
    assert '"fc2.bias" is [3], expected [4]' in refused()
    safetensors.numpy.save_file({"fc2.bias": np.zeros(4, np.int64)}, file)
    assert '"fc2.bias" is of type I64, expected F32' in refused()
    mixed = {"fc1.bias": np.zeros(4, np.float32), "fc2.bias": np.zeros(4, np.float64)}
    safetensors.numpy.save_file(mixed, file)
    assert "of several types" in refused()
    assert ctl.json("show", "a")["version"]["params"] == "1"


def test_another_version_is_a_conflict(ctl, tmp_path):
    ctl("create", *SMALL, "--name", "a")
    ctl("params", "get", "a", "-o", "f")
    ctl("params", "set", "a", "f", "--if-version", "1")
    stale = ("params", "set", "a", "f", "--if-version", "1")
    assert "version" in ctl.refuses(EXIT["conflict"], *stale)
    ctl("create", *SMALL, "--name", "fixed", "--read-only")
    assert "read_only" in ctl.refuses(EXIT["conflict"], "params", "set", "fixed", "f")


def test_a_folder_that_cannot_be_written(ctl, tmp_path):
    ctl("create", *SMALL, "--name", "a")
    lost = ("params", "get", "a", "-o", "no/folder/f")
    assert "cannot write no/folder/f" in ctl.refuses(EXIT["conflict"], *lost)
    full = ctl.run("params", "get", "a", "-o", "/dev/full")
    assert full.returncode == EXIT["exhausted"]
    assert "No space left" in full.stderr


def test_a_file_is_replaced_as_it_was(ctl, tmp_path):
    ctl("create", *SMALL, "--name", "a")
    file, link = tmp_path / "f", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    ctl("params", "get", "a", "-o", link)
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert "fc1.weight" in safetensors.numpy.load_file(file)


class StallingRelay(Relay):
    """Passes so many bytes on to the client, and then none, but keeps connections."""

    def __init__(self, server, down):
        super().__init__(server, down=down)
        self.stalled = threading.Event()

    def _end(self):
        self.stalled.set()
        time.sleep(60)


@pytest.fixture
def far(start):
    """A server by TCP: its host and port, and a network there of 45 MB."""
    server = start(options=("--listen=127.0.0.1:0",))
    target = server.process.banner.split(" on ")[1].split(" (")[0].split(", ")
    host, port = next(t for t in target if t.startswith("127.")).split(":")
    server.create("seq-cifar10", name="large", module=False)
    return host, int(port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_leaves_nothing(backbonectl, far, tmp_path, number):
    relay = StallingRelay(far, down=1 << 20)
    control = Control(backbonectl, relay.target, tmp_path)
    (tmp_path / "f").write_text("old")
    process = subprocess.Popen(
        control.command("params", "get", "large", "-o", "f"),
        env=control.environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert relay.stalled.wait(60)
    assert len(list(tmp_path.iterdir())) == 2  # The one that is being written.
    process.send_signal(number)
    assert process.communicate(timeout=60) == (b"", None)
    assert process.returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"
    relay.close()


def test_a_lost_download_leaves_nothing(backbonectl, far, tmp_path):
    relay = Relay(far, down=1 << 20)
    control = Control(backbonectl, relay.target, tmp_path)
    lost = ("params", "get", "large", "-o", "f", "--timeout", "0.5")
    assert "connection" in control.refuses(EXIT["unreachable"], *lost)
    assert list(tmp_path.iterdir()) == []


def test_a_bar_shows_on_a_terminal_alone(backbonectl, far, tmp_path):
    control = Control(backbonectl, "{}:{}".format(*far), tmp_path)
    assert "wrote f, version 1\n" in control("params", "get", "large", "-o", "f")
    for verb in (("get", "large", "-o", "f"), ("set", "large", "f")):
        master, slave = pty.openpty()
        ended = control.run(
            *("params", *verb),
            **{"capture_output": False, "stdout": subprocess.PIPE, "stderr": slave},
        )
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # The end.
            while part := os.read(master, 1 << 16):
                shown += part
        shown = shown.decode()
        os.close(master)
        assert ended.returncode == 0
        assert f"{verb[0]}ting large  [" in shown
        assert "of 44.7 MB" in shown
        assert shown.endswith("\r\x1b[K")  # It goes at the end.


def test_checkpoints(ctl):
    ctl("create", *SMALL, "--name", "a")
    ctl("params", "get", "a", "-o", "f")
    digest = ctl.json("show", "a", "--digest")["digest"]
    name, number = ctl("checkpoint", "save", "a").split()
    assert name == "a"
    ctl("create", *SMALL, "--name", "other")
    saved = ctl.json("checkpoint", "save", "other", "a", "--keep", "2")
    assert int(saved["number"]) > int(number)
    listed = ctl.json("checkpoint", "ls")["checkpoints"]
    assert [c["number"] for c in listed] == [number, saved["number"]]
    first, second = rows_of(ctl("checkpoint", "ls"))
    assert (first["NAME"], first["INSTANCE"], second["INSTANCE"]) == ("a", "a", "other")
    taken = ("checkpoint", "load", "a", "--number", number)
    assert "exists already" in ctl.refuses(EXIT["conflict"], *taken)
    assert ctl(*taken, "again") == "again\n"
    assert ctl.json("show", "again", "--digest")["digest"] == digest
    assert ctl.json("checkpoint", "load", "a", "last")["instance"]["name"] == "last"
    assert ctl("checkpoint", "rm", "a", "--number", number) == "deleted a\n"
    assert ctl("checkpoint", "rm", "a", "--yes") == "deleted a\n"
    assert ctl.json("checkpoint", "ls")["checkpoints"] == []


def test_a_server_that_keeps_no_state(backbonectl, start, tmp_path):
    server = start(instances=["seq-mnist"])
    control = Control(backbonectl, server.target, tmp_path)
    said = control.refuses(EXIT["conflict"], "checkpoint", "save", "seq-mnist")
    assert "--state-dir" in said


def test_others_may_not(ctl, kept, backbonectl, tmp_path):
    bob = Control(backbonectl, kept.target("bob"), tmp_path)
    ctl("create", *SMALL, "--name", "open", "--shared")
    ctl("create", *SMALL, "--name", "hidden")
    assert bob("ls", "--names") == "local/open\n"
    assert bob("show", "local/open").startswith("name           open\n")
    bob("params", "get", "local/open", "-o", "f")
    for verb in (("rm", "local/open"), ("params", "set", "local/open", "f")):
        said = bob.refuses(EXIT["not allowed"], *verb)
        assert 'instance "local/open" belongs to local' in said
    bob.refuses(EXIT["missing"], "show", "local/hidden")


def test_a_limit(backbonectl, start, tmp_path):
    server = start(options=("--max-instances=1",))
    control = Control(backbonectl, server.target, tmp_path)
    control("create", *SMALL, "--name", "a")
    said = control.refuses(EXIT["exhausted"], "create", *SMALL, "--name", "b")
    assert "max-instances" in said


def test_no_server(backbonectl, tmp_path):
    control = Control(backbonectl, f"unix:{tmp_path}/none.sock", tmp_path)
    said = control.refuses(EXIT["unreachable"], "ls", "--timeout", "0.1")
    assert f"no server at unix:{tmp_path}/none.sock" in said
    del control.environment["BACKBONED_SERVER"]
    said = control.refuses(EXIT["usage"], "ls")
    assert said.startswith("without --server, no server is named")


def test_the_server_is_named_as_clients_name_it(ctl, kept, tmp_path):
    target = ctl.environment.pop("BACKBONED_SERVER")
    file = tmp_path / "lab.yaml"
    file.write_text(f"target: {target}\n")
    assert ctl("health", "--server", target) == "serving\n"
    assert ctl("health", "--server", file) == "serving\n"
    assert ctl("health", "--connection", file) == "serving\n"
    ctl.environment["BACKBONED_CONNECTION"] = str(file)
    assert ctl("health") == "serving\n"
    del ctl.environment["BACKBONED_CONNECTION"]
    folder = tmp_path / ".config/backboned"
    folder.mkdir(parents=True)
    file.rename(folder / "connection.yaml")
    assert ctl("health") == "serving\n"
    ctl.environment["BACKBONED_SERVER"] = target


def test_tls_of_a_connection_file(ctl, far, authority, shown, tmp_path):
    with TlsFront("{}:{}".format(*far), shown) as front:
        file = tmp_path / "lab.yaml"
        file.write_text(f"target: {front.target}\nca: {authority.ca}\n")
        assert ctl("ls", "--names", "--connection", file) == "large\n"
        (tmp_path / "other").mkdir()
        other = Authority(tmp_path / "other").ca
        file.write_text(f"target: {front.target}\nca: {other}\n")
        refused = ("ls", "--connection", file, "--timeout", "1")
        assert "no server at" in ctl.refuses(EXIT["unreachable"], *refused)


def test_health_of_an_instance_that_comes_and_goes(ctl):
    watch = subprocess.Popen(
        ctl.command("health", "--instance", "brief", "--watch"),
        env=ctl.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout.readline() == "unknown\n"
    ctl("create", *SMALL, "--name", "brief")
    assert watch.stdout.readline() == "serving\n"
    assert ctl("health", "--instance", "brief") == "serving\n"
    assert ctl.json("health", "--instance", "brief") == {"status": "SERVING"}
    ctl("rm", "brief", "--yes")
    assert watch.stdout.readline() == "unknown\n"
    watch.terminate()
    watch.wait(60)
    watch.stdout.close()


def test_health_of_a_server_that_ends(backbonectl, binary, tmp_path):
    with KeptServer(binary, tmp_path) as kept:
        kept.start()
        control = Control(backbonectl, kept.target(), tmp_path)
        assert control("health") == "serving\n"
        assert control.json("health") == {"status": "SERVING"}
        watch = subprocess.Popen(
            control.command("health", "--watch", "--json"),
            env=control.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert json.loads(watch.stdout.readline()) == {"status": "SERVING"}
        kept.process.terminate()
        out, err = watch.communicate(timeout=60)
        assert watch.returncode == EXIT["unreachable"]
        assert out in ("", '{"status":"NOT_SERVING"}\n')
        assert err.startswith("backbonectl: ")
        kept.process.wait(60)
        ended = ("health", "--timeout", "0.1")
        assert "no server at" in control.refuses(EXIT["unreachable"], *ended)


def test_a_killed_server(backbonectl, binary, tmp_path):
    with KeptServer(binary, tmp_path) as kept:
        kept.start()
        control = Control(backbonectl, kept.target(), tmp_path)
        control("create", *SMALL, "--name", "a")
        kept.process.kill()
        kept.process.wait()
        for verb in (
            *(("ls",), ("show", "a"), ("create", *SMALL), ("clone", "a", "b")),
            *(("rm", "a"), ("params", "get", "a", "-o", "f")),
            *(("params", "set", "a", "f"), ("top", "--once"), ("checkpoint", "ls")),
            *(("checkpoint", "save", "a"), ("checkpoint", "load", "a")),
            ("checkpoint", "rm", "a"),
        ):
            control.refuses(EXIT["unreachable"], *verb, "--timeout", "0.1")
