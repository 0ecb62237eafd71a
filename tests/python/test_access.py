"""Tests who calls, by the address that is used, and what others' networks are then."""

import grp
import os
import pathlib
import pwd
import re
import select
import socket
import subprocess
import sys
import tempfile

import backboned
import grpc
import numpy as np
import pytest
import torch
from backboned.errors import NotFound, Refused

IMAGES = torch.zeros(2, 1, 28, 28)


@pytest.fixture
def people(start, tmp_path):
    """Gives the servers that alice and bob see, and that of the admin."""
    sockets = {name: f"unix:{tmp_path}/{name}" for name in ("alice", "bob")}
    options = [f"--listen={path},principal={name}" for name, path in sockets.items()]
    admin = start(options=options, threads=2)
    connected = [backboned.connect(path) for path in sockets.values()]
    yield (*connected, admin)
    for server in connected:
        server.close()


def test_a_socket_says_who_calls(people):
    assert [server.info().principal for server in people] == ["alice", "bob", "local"]


def test_equal_names_are_two_networks(people):
    nets = [
        server.create("seq-mnist", name="net", seed=seed)
        for seed, server in enumerate(people[:2])
    ]
    for net, server in zip(nets, people):
        optimizer = backboned.optim.SGD(net, lr=0.1)
        net(IMAGES).sum().backward()
        optimizer.step()
        assert net.instance.info().owner == server.info().principal
    alices, bobs = (server.instance("net", False) for server in people[:2])
    assert alices.uid != bobs.uid
    assert not np.array_equal(alices.get_params(), bobs.get_params())


def test_another_network_is_not_there(people):
    alice, bob, admin = people
    alice.create("seq-mnist", name="net", seed=0)
    with pytest.raises(NotFound, match='no instance "alice/net"'):
        bob.instance("alice/net", False)
    assert [info.name for info in bob.instances()] == []
    assert [info.name for info in admin.instances()] == ["net"]


def test_a_shared_network_is_read_and_cloned_and_not_written(people):
    alice, bob, _ = people
    mine = alice.create("seq-mnist", name="net", seed=0, shared=True, module=False)
    theirs = bob.instance("alice/net", False)
    assert theirs.info().shared and theirs.info().owner == "alice"
    x = IMAGES.numpy()
    np.testing.assert_array_equal(
        theirs.forward(x).outputs["out"], mine.forward(x).outputs["out"]
    )
    for write in (
        lambda: theirs.set_params(theirs.get_params()),
        lambda: theirs.update(shared=False),
        theirs.delete,
    ):
        with pytest.raises(Refused, match="belongs to alice") as refused:
            write()
        assert refused.value.code == grpc.StatusCode.PERMISSION_DENIED
        assert refused.value.reason == "NOT_PERMITTED"
    copy = theirs.clone("copy")
    copy.set_params(np.zeros_like(copy.get_params()))
    assert copy.info().owner == "bob"
    mine.update(shared=False)
    with pytest.raises(NotFound):
        theirs.get_params()


def test_what_the_server_hosts_is_everybodys_to_read(start, tmp_path):
    path = f"unix:{tmp_path}/alice"
    options = ["--instance=seq-mnist", f"--listen={path},principal=alice"]
    admin = start(options=options, threads=2)
    with backboned.connect(path) as alice:
        net = alice.instance("seq-mnist")
        net.eval()
        assert net(IMAGES).shape == (2, 10)
        with pytest.raises(Refused, match="belongs to server"):
            alice.instance("seq-mnist", False).update(read_only=True)
    admin.instance("seq-mnist", False).update(read_only=True)


def test_a_claimed_name_is_refused(start):
    server = start()
    with grpc.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/backboned.v1.InstanceService/GetServer")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10, metadata=[("backboned-principal", "alice")])
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "for the server's front alone" in refused.value.details()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unix:S,principal=Alice", "principal=Alice: name 'Alice' does not match"),
        ("unix:S,principal=server", "principal=server: .* the server's own word"),
        ("unix:S,user=daemon", "who calls there"),
        ("unix:S,mode=0666", "need principal or principal-from"),
        ("unix:S,principal=a,principal=b", "principal=b: the option is there twice"),
        ("unix:S,principle=alice", "no such option; did you mean principal"),
        ("unix:S,principal-from=x-user", "it is account or backboned-principal"),
        ("unix:S,user=nobody-at-all", "user=nobody-at-all: there is no such account"),
        ("unix:S,group=nobody-at-all", "there is no such group"),
        ("unix:S,mode=0999", "mode=0999: a mode is octal"),
        (
            "unix:S,principal=a,principal-from=backboned-principal",
            "principal or principal-from, not both",
        ),
        (
            "unix:S,principal=a,principal-from=account",
            "principal or principal-from, not both",
        ),
        ("127.0.0.1:0,principal=alice", "only a Unix socket, unix:/path, has options"),
        ("unix:S,serve=other", "serve=other: it is admin"),
        ("unix:S,serve=admin,principal=a", "neither principal nor principal-from"),
        ("unix:S,principal-from=account,serve=admin", "neither principal nor"),
        ("unix:S,serve=admin,serve=admin", "the option is there twice"),
        ("unix:S,serve=admin", "a server needs one for calls"),
        ("127.0.0.1:0,serve=admin,mode=0600", "only a Unix socket, .* has options"),
        ("principal=alice", "neither unix:/path nor host:port"),
    ],
)
def test_a_wrong_address_is_one_sentence(binary, tmp_path, text, words):
    path = tmp_path / "s"
    ended = subprocess.run(
        [binary, "--listen", text.replace("S", str(path), 1)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("backboned: --listen ")
    assert re.search(words.replace("'", "[\"']"), line), line
    assert not path.exists()


def test_the_environment_has_addresses_with_options(binary, tmp_path):
    listen = f"unix:{tmp_path}/a,principal=alice,mode=0600,unix:{tmp_path}/b"
    with subprocess.Popen(
        [binary],
        env={**os.environ, "BACKBONED_LISTEN": listen},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert (
            f" on unix:{tmp_path}/a, unix:{tmp_path}/b (" in process.stdout.readline()
        )
        for name, principal in {"a": "alice", "b": "local"}.items():
            with backboned.connect(f"unix:{tmp_path}/{name}") as server:
                assert server.info().principal == principal
        process.terminate()


def as_account(account, program, groups=()):
    """Gives the command that runs a program as another account, by name or number.

    `subprocess` does so with a fork that runs gRPC's handlers, and a thread that they
    start ends the child where it still polls at the exec (3 of 1,000 were seen to).
    """
    user = group = account
    if isinstance(account, str):
        user, group = pwd.getpwnam(account)[2:4]
    groups = "--groups=" + ",".join(map(str, groups)) if groups else "--clear-groups"
    return ["setpriv", f"--reuid={user}", f"--regid={group}", groups, *program]


# Connects to a socket, and prints how that ended.
CONNECT = """
import errno, socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("ok")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def connects(path, user, groups=()):
    """Says how a connection ends that an account makes."""
    return subprocess.run(
        as_account(user, [sys.executable, "-S", "-c", CONNECT, path], groups),
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        check=True,
        timeout=60,
    ).stdout.strip()


@pytest.fixture(scope="module")
def accounts(binary):
    """Skips where no program can be started as other accounts."""
    programs = {"daemon": [binary, "--version"]}
    for account in ("games", "man"):
        programs[account] = [sys.executable, "-c", "import numpy"]
    try:
        grp.getgrnam("audio")
        for account, program in programs.items():
            subprocess.run(
                as_account(account, program),
                stdout=subprocess.DEVNULL,
                cwd="/",
                check=True,
                timeout=60,
            )
    except (KeyError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no other account can run programs here: {error}")


@pytest.fixture
def unprivileged(accounts, binary):
    """Starts a server as the account `daemon`; gives its folder, and what starts it."""
    made = subprocess.run(
        ["mktemp", "-d", "/tmp/backboned.XXXXXX"], stdout=subprocess.PIPE, text=True
    )
    folder = made.stdout.strip()
    account = pwd.getpwnam("daemon")
    os.chown(folder, account.pw_uid, account.pw_gid)
    os.chmod(folder, 0o711)
    started = []

    def start(listen):
        process = subprocess.Popen(
            as_account("daemon", [binary, f"--listen={listen}"]),
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        started.append(process)
        return process.stdout.readline()

    yield folder, start
    for process in started:
        process.terminate()
        process.wait(60)
        process.stdout.close()
    assert not os.listdir(folder)
    os.rmdir(folder)


@pytest.mark.parametrize(
    ("options", "others", "members"),
    [
        ("", "EACCES", "EACCES"),
        (",user=games", "ok", "EACCES"),
        (",group=audio", "EACCES", "ok"),
        (",user=games,group=audio,mode=0600", "ok", "ok"),
        (",mode=0666", "ok", "ok"),
    ],
)
def test_the_file_says_who_connects(unprivileged, options, others, members):
    folder, start = unprivileged
    path = f"{folder}/alice.sock"
    line = start(f"unix:{path},principal=alice{options}")
    assert path in line
    audio = grp.getgrnam("audio").gr_gid
    assert connects(path, "daemon") == "ok"
    assert connects(path, "games") == others
    assert connects(path, "man", [audio]) == members
    assert connects(path, "man") == ("ok" if "0666" in options else "EACCES")
    assert connects(path, "man", [audio]) == members


# Connects to a target, and prints who it is there.
WHO = """
import sys, backboned
try:
    with backboned.connect(sys.argv[1]) as server:
        print(server.info().principal)
except backboned.errors.Refused as refused:
    print(refused.message)
"""


def who(path, user):
    """Says who an account is that connects with the Python client."""
    ended = subprocess.run(
        as_account(user, [sys.executable, "-c", WHO, f"unix:{path}"]),
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
    )
    assert not ended.returncode, ended.stderr
    return ended.stdout.strip()


def test_an_account_is_who_its_socket_says(unprivileged):
    folder, start = unprivileged
    path = f"{folder}/alice.sock"
    start(f"unix:{path},principal=alice,user=games")
    assert who(path, "games") == "alice"
    assert who(path, "man").startswith(f"this account may not connect to {path}; ")


def test_an_account_is_the_principal_of_its_name(unprivileged):
    folder, start = unprivileged
    path = f"{folder}/s"
    start(f"unix:{path},principal-from=account,mode=0666")
    for account, name in {"games": "games", "man": "man", "daemon": "local"}.items():
        assert who(path, account) == name
    assert who(path, "root") == "local"
    assert who(path, "games") == "games"


def test_an_account_without_a_name_is_refused(unprivileged):
    folder, start = unprivileged
    path = f"{folder}/s"
    start(f"unix:{path},principal-from=account,mode=0666")
    program = f"import backboned; backboned.connect('unix:{path}', timeout=5)"
    ended = subprocess.run(
        as_account(54321, [sys.executable, "-c", program]),
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
    )
    assert "Unavailable" in ended.stderr, ended.stderr
    assert who(path, "games") == "games"


def test_a_number_that_another_account_is_given_has_its_name(accounts, binary):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        path, names = f"{folder}/s", pathlib.Path(folder, "passwd")
        before = pathlib.Path("/etc/passwd").read_text()
        names.write_text(before)
        mounted = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
        listen = f"--listen=unix:{path},principal-from=account,mode=0666"
        with subprocess.Popen(
            ["unshare", "-m", "sh", "-c", mounted, "sh", names, binary, listen],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            if not process.stdout.readline():
                pytest.skip("no file can be mounted here")
            try:
                assert who(path, "games") == "games"
                names.write_text(before.replace("\ngames:", "\nplayer:"))
                assert who(path, "games") == "player"
                names.write_text(before)
                assert who(path, "games") == "games"
            finally:
                process.terminate()


def test_connections_beyond_the_descriptors_wait(binary, tmp_path):
    """Debian's gRPC would never accept again: CVE-2023-4785."""
    path = f"{tmp_path}/s"
    listen = f"--listen=unix:{path},principal-from=account"
    with subprocess.Popen(
        ["prlimit", "--nofile=100:100", binary, listen],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert "serving on" in process.stdout.readline()
        idle = [socket.socket(socket.AF_UNIX) for _ in range(150)]
        for connection in idle:
            connection.connect(path)
        assert select.select([process.stderr], [], [], 60)[0], "it says nothing"
        assert "cannot accept a connection" in process.stderr.readline()
        for connection in idle:
            connection.close()
        with backboned.connect(f"unix:{path}", timeout=60) as server:
            assert server.info().principal == "local"
        process.terminate()
        process.communicate(timeout=60)


def log_of(binary, *options):
    """Gives what a server says on standard error until it serves."""
    with subprocess.Popen(
        [binary, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "serving on" in process.stdout.readline()
        process.terminate()
        return process.communicate(timeout=60)[1]


def test_a_port_beside_principals_is_warned_of(binary, tmp_path):
    options = ["--listen=127.0.0.1:0", f"--listen=unix:{tmp_path}/alice"]
    assert "an admin" not in log_of(binary, *options)
    options[-1] += ",principal=alice"
    assert "is the principal local, an admin" in log_of(binary, *options)


def test_a_share_of_nobody_is_warned_of(binary, tmp_path):
    options = ["--share=alice=2", "--quota=bob=0.5"]
    alice = f"--listen=unix:{tmp_path}/alice,principal=alice"
    log = log_of(binary, *options, alice)
    assert "--share and --quota of bob have no effect" in log
    assert "alice have no effect" not in log
