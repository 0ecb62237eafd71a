"""The listener that answers HTTP about a server, and takes no calls."""

import contextlib
import os
import re
import signal
import stat
import subprocess
import threading
import time
from urllib.request import urlopen

import backboned
import grpc
import pytest
from admin_http import ask, connect

GET_SERVER = "/backboned.v1.InstanceService/GetServer"
# Constants of server/admin/http_server.h.
MOST_CONNECTIONS, MAX_HEADER_BYTES = 64, 8192


@pytest.fixture
def watched(start, tmp_path):
    """Gives a server, and the path of its admin socket."""
    path = tmp_path / "admin.sock"
    return start(options=[f"--listen=unix:{path},serve=admin"]), path


@pytest.fixture
def run(binary):
    """Starts the program, and gives it and its first line."""
    started = []

    def start_program(*arguments):
        process = subprocess.Popen(
            [binary, "--threads=1", *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline()

    yield start_program
    for process in started:
        process.kill()
        process.communicate()


def test_health_and_nothing_else(watched):
    server, path = watched
    assert ask(path) == (200, "serving\n")
    assert ask(path, "/healthz?verbose=1") == (200, "serving\n")
    assert ask(path, "/health") == (404, "no such page\n")
    assert ask(path, "//") == (404, "no such page\n")
    assert ask(path, "/healthz/") == (404, "no such page\n")
    for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
        assert ask(path, method=method)[0] == 405
    assert ask(path, method="POST", body=b"x" * 100)[0] == 405
    # Metadata of calls means nothing here.
    assert ask(path, headers={"backboned-principal": "alice"})[0] == 200
    assert server.info().version


@pytest.mark.parametrize(
    "host",
    ["localhost:9464", "LocalHost", "127.0.0.1", "10.1.2.3:80", "[::1]:9464", ""],
)
def test_hosts_that_are_asked_for(watched, host):
    _, path = watched
    assert ask(path, headers={"Host": host}) == (200, "serving\n")


@pytest.mark.parametrize(
    "host", ["lab.example.org", "localhost.example:1", "[::1", "x"]
)
def test_a_site_that_names_itself_as_this_machine_reads_nothing(watched, host):
    server, path = watched
    for target in ("/", "/healthz", "/metrics", "/status.json", "/nothing"):
        status, said = ask(path, target, headers={"Host": host})
        assert status == 421 and "--insecure-remote" in said
        assert server.info().version not in said


def test_who_opens_it_to_the_network_may_name_it(start, tmp_path):
    path = tmp_path / "admin.sock"
    start(options=[f"--listen=unix:{path},serve=admin", "--insecure-remote"])
    assert ask(path, headers={"Host": "lab.example.org"}) == (200, "serving\n")


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(watched):
    server, path = watched
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    server.close()
    assert not path.exists() and not path.with_name("admin.sock.lock").exists()


def test_mode_of_a_socket_for_those_who_watch(start, tmp_path):
    path = tmp_path / "admin.sock"
    start(options=[f"--listen=unix:{path},serve=admin,mode=0666"])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666


@pytest.mark.cpu
def test_a_port_that_the_server_chose(run, tmp_path):
    _, banner = run(
        "--listen=localhost:0,serve=admin", f"--listen=unix:{tmp_path}/a.sock"
    )
    found = re.fullmatch(
        r"backboned \S+ serving on unix:\S+ \(cpu, 1 threads\), "
        r"admin on localhost:(\d+)\n",
        banner,
    )
    assert found, banner
    with urlopen(f"http://localhost:{found[1]}/healthz", timeout=30) as answer:
        assert answer.read() == b"serving\n"
    with urlopen(f"http://127.0.0.1:{found[1]}/healthz", timeout=30) as answer:
        assert answer.headers["Cache-Control"] == "no-store"


def test_it_takes_no_calls_and_others_answer_no_http(watched):
    server, path = watched
    with grpc.insecure_channel(f"unix:{path}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(GET_SERVER)(b"", timeout=10)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    with contextlib.closing(connect(server.target.removeprefix("unix:"))) as http:
        http.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b"".join(iter(lambda: http.recv(4096), b""))
    assert b"serving" not in said
    assert ask(path)[0] == 200 and server.info().version


def test_ready_file_and_check_mean_the_first_address_for_calls(run, tmp_path, binary):
    ready = tmp_path / "ready.yaml"
    listen = [
        f"--listen=unix:{tmp_path}/admin.sock,serve=admin",
        f"--listen=unix:{tmp_path}/calls.sock",
    ]
    run(*listen, f"--ready-file={ready}")
    assert f"unix:{tmp_path}/calls.sock" in ready.read_text()
    with backboned.connect(ready) as server:
        assert server.info().version
    checked = subprocess.run(
        [binary, *listen, "--check"], capture_output=True, text=True, timeout=60
    )
    assert checked.stdout == f"unix:{tmp_path}/calls.sock serves\n"


def test_beyond_loopback_needs_the_word(binary, tmp_path):
    listen = [f"--listen=unix:{tmp_path}/a", "--listen=0.0.0.0:0,serve=admin"]
    ended = subprocess.run(
        [binary, *listen], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "refusing to listen on 0.0.0.0:0" in ended.stderr


def test_an_address_that_is_served_is_refused(watched, binary, tmp_path):
    _, path = watched
    listen = [f"--listen=unix:{tmp_path}/a", f"--listen=unix:{path},serve=admin"]
    ended = subprocess.run(
        [binary, *listen], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1 and "another server listens there" in ended.stderr
    assert ask(path)[0] == 200


def test_health_while_the_server_drains(run, tmp_path):
    calls, admin = tmp_path / "calls.sock", tmp_path / "admin.sock"
    process, _ = run(f"--listen=unix:{calls}", f"--listen=unix:{admin},serve=admin")
    with backboned.connect(f"unix:{calls}") as server:
        with grpc.insecure_channel(f"unix:{calls}") as channel:
            upload = channel.stream_unary("/backboned.v1.BackboneService/SetParams")
            over = threading.Event()
            call = upload.future((b"" for _ in "x" if over.wait(60)), timeout=60)
            deadline = time.monotonic() + 30
            while server.info().principal_usage.calls < 2:
                assert time.monotonic() < deadline
            process.send_signal(signal.SIGTERM)
            while ask(admin) == (200, "serving\n"):
                assert time.monotonic() < deadline
            assert ask(admin) == (503, "not serving\n")
            over.set()
            assert call.exception() is not None
    assert process.wait(30) == 0


def half(path):
    """Begin a request, and do not end it."""
    client = connect(path)
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
    return client


def test_clients_that_never_finish_hold_up_nobody(watched):
    server, path = watched
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(contextlib.closing(half(path)))
            for _ in range(MOST_CONNECTIONS + 40)
        ]
        for _ in range(3):
            assert ask(path) == (200, "serving\n")
        # Each that came gave way to a later one, the oldest first.
        assert [client.recv(1) for client in slow[:40]] == [b""] * 40
        slow[-1].sendall(b"localhost\r\n\r\n")
        assert slow[-1].recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.info().version


def test_a_client_that_is_slow_is_cut_off(watched):
    _, path = watched
    with contextlib.closing(half(path)) as slow:
        assert slow.recv(1) == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * MAX_HEADER_BYTES,
        b"GET /" + b"x" * MAX_HEADER_BYTES,
        b"".join(b"X-%d: x\r\n" % i for i in range(2000)),
        b"POST /healthz HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n" + b"x" * 5000,
        b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 64,
        b"\x16\x03\x01" + bytes(range(256)),
        b"\0" * 20_000,
    ],
)
def test_what_is_no_request_ends_its_connection_alone(watched, request_bytes):
    server, path = watched
    with contextlib.closing(connect(path)) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(request_bytes)
            client.shutdown(1)
            said = b"".join(iter(lambda: client.recv(4096), b""))
            assert b"200" not in said.split(b"\r\n")[0]
    assert ask(path)[0] == 200 and server.info().version
