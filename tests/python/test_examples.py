"""The example clients: what each prints, and what it leaves behind."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from reference_models import ReferenceResNet18, seeded
from relay import Relay
from test_lifecycle import wait_until
from tls_front import Recorder, TlsFront

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "examples"  # Ignored by git, and kept for the next run.
PROTO = ROOT / "proto"


class Example(NamedTuple):
    """The tools and commands that build and run one, in a copy of its folder."""

    tools: tuple = ()
    build: tuple = ()
    program: tuple = ()


EXAMPLES = {
    "cpp": Example(),  # Is built with the server.
    "go": Example(
        tools=("go", "protoc"),
        build=("go generate", "go build -o example"),
        program=("./example",),
    ),
    "java": Example(
        tools=("javac", "mvn"),
        build=("mvn --batch-mode --no-transfer-progress package",),
        program=("java", "-jar", "target/backboned-example.jar"),
    ),
    "node": Example(
        tools=("node", "npm", "protoc"),
        build=("npm ci --ignore-scripts --no-audit --no-fund", "npm run build"),
        program=("node", "dist/main.js"),
    ),
    "python": Example(
        build=(
            f"{sys.executable} -m venv .venv",
            ".venv/bin/pip install --disable-pip-version-check -r requirements.txt",
            ".venv/bin/python -m grpc_tools.protoc -I ../../../proto"
            " --python_out=. --grpc_python_out=. ../../../proto/backboned/v1/*.proto",
        ),
        program=(".venv/bin/python", "example.py"),
    ),
    "rust": Example(
        tools=("cargo", "protoc"),
        build=("cargo build --release --locked --target-dir target",),
        program=("target/release/backboned-example",),
    ),
}


def sources(language):
    """List an example's files, and not what builds may have left beside them."""
    folder = f"client/examples/{language}"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()]


def fingerprint(language):
    """Say what a build is made from."""
    digest = hashlib.sha256(repr(EXAMPLES[language]).encode())
    for file in sources(language) + sorted(PROTO.rglob("*.proto")):
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def copy_sources(language, folder):
    shutil.rmtree(folder / "src", ignore_errors=True)
    for file in sources(language):
        target = folder / file.relative_to(ROOT / "client" / "examples" / language)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def build(language, folder):
    log = folder / "build.log"
    log.unlink(missing_ok=True)
    for command in EXAMPLES[language].build:
        with open(log, "ab") as output:
            status = subprocess.call(
                command,
                shell=True,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if status:
            pytest.fail(
                f"{language}: {command!r} ended with status {status}:\n"
                + log.read_text(errors="replace")[-4000:]
            )


@pytest.fixture(scope="session", params=EXAMPLES)
def program(request, binary):
    """The command of each example, built if anything changed since the last time."""
    language = request.param
    if language == "cpp":
        built = binary.parent / "cpp-example"
        if not built.exists():
            pytest.skip(f"there is no {built.name} beside {binary.name}")
        return [str(built)]
    example = EXAMPLES[language]
    missing = [tool for tool in example.tools if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{language}: {', '.join(missing)} is not installed")
    folder = BUILT / language
    stamp, made_from = folder / "built", fingerprint(language)
    if not stamp.exists() or stamp.read_text() != made_from:
        stamp.unlink(missing_ok=True)
        copy_sources(language, folder)
        build(language, folder)
        stamp.write_text(made_from)
    command = example.program
    return [
        str(folder / word) if (folder / word).exists() else word for word in command
    ]


def run(program, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # Nobody is there, and none of them asks.
    environment |= {f"{k}_proxy": "http://127.0.0.1:9" for k in ("http", "https")}
    return subprocess.run(
        [*program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def over_tcp(server):
    """Where a server serves besides its Unix socket."""
    return re.search(r"127\.0\.0\.1:\d+", server.process.banner)[0]


@pytest.fixture(scope="module")
def serving(binary):
    """A server for the examples alone, on a Unix socket and a free port."""
    import backboned

    options = ["--listen=127.0.0.1:0"]
    with backboned.local_server(binary=binary, threads=2, options=options) as server:
        yield server


@pytest.fixture(scope="module")
def expected(serving):
    """The output of each: its checksum is of what torch computes in this process."""
    info = serving.info()
    benchmark = next(b for b in serving.benchmarks() if b.name == "seq-cifar10")
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
        for values in benchmark.normalization
    )
    pixels = torch.arange(8 * 3 * 32 * 32) * 7919 % 256
    images = (pixels.view(8, 3, 32, 32).float() / 255 - mean) / std
    net = seeded(ReferenceResNet18, 0).eval()

    checksum = hashlib.sha256()

    def add(*tensors):
        for tensor in tensors:
            checksum.update(tensor.detach().numpy().tobytes())

    features = net.outputs(images)["features"]
    add(features, features, *net.parameters())
    with torch.no_grad():
        for parameter in net.classifier.parameters():
            parameter /= 2
    logits = net.train().outputs(images)["out"]
    logits.backward(logits.detach())
    add(logits, *(parameter.grad for parameter in net.parameters()))
    return [
        f"server:     {info.version}, LibTorch {info.torch_version}",
        "features:   [8, 512]",
        "parameters: 11173962 of version 1",
        "head:       5130 halved, version 2",
        "again:      refused, ERROR_REASON_STALE_VERSION",
        "gradients:  11173962",
        f"sha256:     {checksum.hexdigest()}",
    ]


def allocated_bytes(server):
    return server.info().devices[0].allocated_bytes


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_prints_what_torch_computes_and_leaves_nothing(
    program, serving, expected, transport
):
    before = allocated_bytes(serving)
    target = serving.target if transport == "unix" else over_tcp(serving)
    done = run(program, target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected
    assert serving.instances() == []
    assert allocated_bytes(serving) == before


def test_shows_a_certificate_and_a_token_through_tls(
    program, serving, expected, authority, shown, tmp_path
):
    certificate, key = authority.issue("example")
    token = tmp_path / "token"
    token.write_text("secret\n")
    files = {"ca": authority.ca, "certificate": certificate, "key": key}
    options = [f"--{name}={file}" for name, file in files.items()]
    with Recorder(serving) as recorder:
        with TlsFront(recorder.target, shown, authority.ca) as front:
            done = run(program, *options, f"--token-file={token}", front.target)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == expected
        assert set(recorder.tokens()) == {"Bearer secret"}
        # And never in clear.
        recorder.calls.clear()
        done = run(program, f"--token-file={token}", recorder.target)
        assert done.returncode == 1
        assert "a token " in done.stderr or "Ssl handshake failed" in done.stderr
        assert recorder.calls == []


@pytest.fixture(scope="module")
def tapeless(binary):
    """A server that refuses every tape, which an example needs at its end."""
    import backboned

    options = ["--listen=127.0.0.1:0", "--max-tape-bytes=0"]
    with backboned.local_server(binary=binary, threads=2, options=options) as server:
        yield server


def test_failure_is_one_sentence_and_leaves_nothing(program, tapeless):
    done = run(program, over_tcp(tapeless))
    assert done.returncode == 1
    assert re.fullmatch(
        r"example: .*this server uses 0 of its 0 of max-tape-bytes.*\n", done.stderr
    ), done.stderr
    assert "sha256" not in done.stdout and "head" in done.stdout
    assert tapeless.instances() == []


def test_absent_server_is_one_sentence(program):
    done = run(program, "unix:/nowhere/b.sock")
    assert done.returncode == 1 and not done.stdout
    assert re.search(r"^example: .*[Uu][Nn][Aa][Vv][Aa][Ii][Ll]", done.stderr, re.M)
    assert "Traceback" not in done.stderr and "\tat " not in done.stderr


def test_takes_one_target(program):
    for arguments in ([], ["127.0.0.1:1", "127.0.0.1:2"]):
        done = run(program, *arguments)
        assert done.returncode not in (0, -6, -11)
        assert done.stderr.startswith("usage: ")


# Where the connection breaks: after so many bytes, and between which lines.
MIDDLES = {
    "upload of images": ({"up": 37_000}, "features", "parameters"),
    "download of parameters": ({"down": 20_000_000}, "features", "parameters"),
    "download of gradients": ({"down": 65_000_000}, "again", "gradients"),
}


@pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES)
def test_lost_connection_is_a_failure_and_leaves_nothing(program, serving, middle):
    bytes_before_end, printed, missing = middle
    files = f"/proc/{serving.process.pid}/fd"
    allocated, opened = allocated_bytes(serving), len(os.listdir(files))
    host, port = over_tcp(serving).split(":")
    with contextlib.closing(Relay((host, int(port)), **bytes_before_end)) as relay:
        done = run(program, relay.target)
    assert done.returncode == 1
    assert re.search(r"^example: ", done.stderr, re.M), done.stderr
    assert "Traceback" not in done.stderr and "\tat " not in done.stderr
    assert f"{printed}:" in done.stdout and f"{missing}:" not in done.stdout
    # The rest is its session's, and goes with that.
    (left,) = serving.instances()
    assert left.ephemeral
    wait_until(lambda: serving.instances()[0].tape_count == 0)
    serving.delete(left.name)
    wait_until(lambda: allocated_bytes(serving) == allocated)
    wait_until(lambda: len(os.listdir(files)) <= opened)
