"""Fixtures: the real server, one for the session, and trainings on it."""

import os
import signal
from pathlib import Path

# Before torch is loaded: the server shares the processor with the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import backboned
import fake_gpu
import pytest
import torch
from backboned.transport.local import find_binary
from tls_front import Authority

THREADS = 2

pytest.register_assert_rewrite("mammoth_pairs")


# A shell starts what runs in its background with Ctrl-C ignored: children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take ten seconds or more on two quiet cores, the longest first: workers
# begin with them, so that none is left with a long one at the end.
SLOW = (
    *("test_examples", "test_faults", "test_architectures", "test_pytorch_table"),
    *("test_rollback", "test_outages", "test_mammoth_methods", "test_optimizers"),
    *(
        "test_demo",
        "test_cuts",
        "test_examples_python",
        "test_ecosystem",
        "test_strangers",
    ),
    *("test_lifecycle", "test_mammoth_vit", "test_mammoth_hosted", "test_weights"),
    *("test_recovery", "test_crash", "test_admin", "test_checkpoint_faults"),
    *("test_usage", "test_pages", "test_metrics", "test_checkpoints"),
    *("test_gpu_check", "test_peers", "test_cli", "test_cli_completion"),
    *("test_sleep", "test_configuration"),
)


def pytest_addoption(parser):
    parser.addoption(
        "--fake-cuda", action="store_true", help="servers compute on a fake CUDA device"
    )


def pytest_configure(config):
    if config.option.fake_cuda:
        os.environ.update(BACKBONED_BIN=str(fake_gpu.FAKE), BACKBONED_DEVICE="cuda")
    wanted = config.option.markexpr
    conditions = [f"({wanted})"] if wanted else []
    if "nightly" not in wanted:
        conditions.append("not nightly")
    if config.option.fake_cuda:
        conditions.append("not cpu")
    config.option.markexpr = " and ".join(conditions)


def pytest_collection_modifyitems(config, items):
    """Mark tests by their file."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")
        for kind in ("mammoth", "examples"):
            if item.path.stem.startswith(f"test_{kind}"):
                item.add_marker(kind)
    if hasattr(config, "workerinput"):  # Of pytest-xdist.
        last = len(SLOW)
        rank = {stem: place for place, stem in enumerate(SLOW)}
        items.sort(key=lambda item: rank.get(item.path.stem, last))


@pytest.fixture(scope="session")
def binary():
    try:
        return find_binary()
    except backboned.errors.ServerStartError as error:
        if os.environ.get("BACKBONED_BIN"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def equal_threads():
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def server(binary):
    """A server that the tests share; each makes its own instances."""
    with backboned.local_server(binary=binary, threads=THREADS) as server:
        yield server


@pytest.fixture
def mlp(server):
    """A fresh seq-mnist instance for NumPy."""
    return server.create("seq-mnist", seed=0, module=False)


@pytest.fixture
def net(server):
    """A fresh seq-mnist network."""
    return server.create("seq-mnist", seed=0)


@pytest.fixture(scope="session")
def backbonectl():
    """The program: by its variable, beside the server's, or in the build."""
    named = os.environ.get("BACKBONECTL")
    beside = Path(os.environ.get("BACKBONED_BIN", "backboned")).with_name("backbonectl")
    built = Path(__file__).parents[2] / "build/release/backbonectl"
    for path in (named, beside, built):
        if path and Path(path).exists():
            return Path(path)
    pytest.skip("backbonectl is not built")


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Signs certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def shown(authority):
    """Files of the certificate of a server, and its key."""
    return authority.issue("server")


@pytest.fixture
def start(binary):
    """Starts servers of a test's own, and stops them at its end."""
    started = []

    def start_one(**options):
        options.setdefault("threads", 1)
        server = backboned.local_server(binary=binary, **options)
        started.append(server)
        return server

    yield start_one
    for server in started:
        server.close()
