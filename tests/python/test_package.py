"""The package: a pure wheel that imports without torch, quickly."""

import subprocess
import sys
import zipfile
from pathlib import Path

import backboned
import pytest

CLIENT = Path(__file__).parents[2] / "client"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheels of the client and of the drop-in for Mammoth, by their folders."""
    import shutil

    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("*.egg-info", "build", "__pycache__", ".*cache")
    found = {}
    for part in ("python", "mammoth"):
        shutil.copytree(CLIENT / part, folder / part, ignore=ignored)
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
        subprocess.run(
            [*command, "--outdir", folder / "made" / part, folder / part],
            check=True,
            capture_output=True,
        )
        (found[part],) = (folder / "made" / part).glob("*.whl")
    return found


@pytest.fixture
def wheel(wheels):
    return wheels["python"]


def metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
    return archive.read(name).decode()


def test_wheel_is_pure_and_installs_no_program(wheel):
    assert wheel.name == f"backboned-{backboned.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert "backboned/py.typed" in names
    assert "backboned/v1/backbone_service_pb2.pyi" in names
    assert not [n for n in names if "entry_points" in n or ".data/" in n]


def test_extras_name_the_server_of_the_same_version(wheel):
    for extra in ("server", "demo"):
        wanted = f'backboned-server=={backboned.__version__}; extra == "{extra}"'
        assert f"Requires-Dist: {wanted}\n" in metadata(wheel)


def test_the_drop_in_is_a_wheel_of_its_own_that_needs_this_client(wheels):
    version = backboned.__version__
    drop_in = wheels["mammoth"]
    assert drop_in.name == f"backboned_mammoth-{version}-py3-none-any.whl"
    assert f"Requires-Dist: backboned[torch]=={version}\n" in metadata(drop_in)
    folders = {
        part: {n.split("/")[0] for n in zipfile.ZipFile(wheel).namelist()}
        for part, wheel in wheels.items()
    }
    assert "backboned_mammoth" in folders["mammoth"]
    assert "backboned_mammoth" not in folders["python"]
    assert not folders["python"] & folders["mammoth"]


def run_isolated(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_import_loads_neither_torch_nor_tqdm():
    done = run_isolated(
        "import sys, backboned; "
        "print({'torch', 'tqdm', 'matplotlib'} & set(sys.modules))"
    )
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "None"),
    ],
)
def test_idle_openmp_threads_spin_briefly_unless_the_user_says(
    monkeypatch, given, spins
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    done = run_isolated("import os, backboned; print(os.environ.get('GOMP_SPINCOUNT'))")
    assert done.stdout.strip() == spins, done.stderr


WITHOUT_TORCH = """
import sys
sys.modules['torch'] = None
import numpy as np, backboned
with backboned.local_server(threads=1) as server:
    net = server.create("seq-mnist", seed=0)
    assert isinstance(net, backboned.Instance)
    assert net.features(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 100)
    try:
        server.create("seq-mnist", module=True)
    except ImportError as error:
        print(error)
"""


def test_without_torch_instances_speak_numpy(binary):
    done = run_isolated(WITHOUT_TORCH)
    assert done.returncode == 0, done.stderr
    assert "backboned[torch]" in done.stdout


def test_progress_without_tqdm_is_explained():
    done = run_isolated(
        "import sys; sys.modules['tqdm'] = None\n"
        "import backboned\n"
        "backboned.local_server(progress=True)"
    )
    assert "backboned[progress]" in done.stderr


def test_bar_appears_after_a_second(monkeypatch, capsys):
    from backboned.transport import traffic

    now = [0.0]
    monkeypatch.setattr(traffic.time, "monotonic", lambda: now[0])
    bar = traffic.Bar("GetParams down", True)
    bar.at(10, 100)
    assert "GetParams" not in capsys.readouterr().err
    now[0] = 1.5
    bar.at(50, 100)
    assert "GetParams down" in capsys.readouterr().err
    bar.close()
    silent = traffic.Bar("GetParams down", False)
    silent.at(50, 100)
    silent.close()
    assert "GetParams" not in capsys.readouterr().err


def test_every_public_name_is_there():
    import backboned

    for name in backboned.__all__:
        assert getattr(backboned, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        backboned.nothing  # noqa: B018


def test_names_of_the_last_release_are_found_with_a_warning():
    import backboned

    for name, module in (
        ("StaleVersion", backboned.errors),
        ("Refused", backboned.errors),
        ("Optimizer", backboned.types),
        ("Waiting", backboned.types),
    ):
        with pytest.warns(DeprecationWarning, match=f"{module.__name__}.{name} now"):
            assert getattr(backboned, name) is getattr(module, name)
