"""Tests of scripts/setup, build and demo, with stubs for programs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import ROOT, Checkout

SETTINGS_OF_ALL = "UV_SYSTEM_CERTS=1\nUV_INDEX_STRATEGY=unsafe-best-match\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_demo_installs_only_what_it_needs(checkout: Checkout) -> None:
    done = checkout.run("setup", "demo")
    assert done.returncode == 0, done
    assert done.stdout.endswith("setup: ready\n")
    assert "Python packages (2.6 GB to fetch, 5 GB on disk), about 70 s" in done.stdout
    assert "-r requirements/demo.txt\n" in checkout.calls()
    assert "dev.txt" not in checkout.calls()


def test_the_second_run_finds_nothing_to_do(checkout: Checkout) -> None:
    checkout.run("setup")
    assert "-r requirements/demo.txt -r requirements/dev.txt\n" in checkout.calls()
    for extent in ([], ["demo"]):
        done = checkout.run("setup", *extent)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert checkout.calls() == ""


def test_promtool_is_there_after_a_whole_setup(checkout: Checkout) -> None:
    promtool = checkout.root / "build/tools/promtool"
    checkout.run("setup", "demo")
    assert not promtool.exists()
    for _ in range(2):
        done = checkout.run("setup")
        assert done.returncode == 0, done
        assert promtool.exists()
        promtool.unlink()
    checkout.stub("apt-get", "#!/bin/sh\nexit 1\n")
    line = checkout.refusal("setup")
    assert line.startswith("setup: promtool (19 MB to fetch) failed")


def test_after_the_demo_a_whole_setup_has_more_to_do(checkout: Checkout) -> None:
    checkout.run("setup", "demo")
    checkout.run("setup")
    assert "requirements/dev.txt" in checkout.calls()


def test_a_changed_requirement_is_installed(checkout: Checkout) -> None:
    checkout.run("setup", "demo")
    with (checkout.root / "requirements" / "demo.txt").open("a") as file:
        file.write("six==1.17.0\n")
    checkout.run("setup", "demo")
    assert "-r requirements/demo.txt\n" in checkout.calls()


def test_pip_installs_what_uv_does_not_get(checkout: Checkout) -> None:
    done = checkout.run("setup", "demo", UV_STATUS="2")
    assert done.returncode == 0, done
    assert "uv does not get them" in done.stdout
    assert re.search("pip .*install -r requirements/demo.txt", checkout.calls())


def test_pip_installs_where_there_is_no_uv(checkout: Checkout) -> None:
    done = checkout.run("setup", "demo", NO_UV="1")
    assert done.returncode == 0, done
    assert "uv is not to be had" in done.stdout
    assert re.search("pip .*install -r requirements/demo.txt", checkout.calls())


def test_an_environment_that_was_interrupted_is_made_again(checkout: Checkout) -> None:
    checkout.run("setup", "demo")
    (checkout.root / ".venv" / "setup-demo.sha256").unlink()
    checkout.run("setup", "demo")
    assert "-m venv" not in checkout.calls()
    (checkout.root / ".venv" / "setup-demo.sha256").unlink()
    checkout.run("setup", "demo", PIP_STATUS="1")
    assert "-m venv --clear .venv" in checkout.calls()


def test_pip_installs_where_uv_cannot_be_set_as_pip_is(checkout: Checkout) -> None:
    Path(checkout.environment["PIP_SETTINGS"]).write_text("global.keyring='x'\n")
    done = checkout.run("setup", "demo")
    assert done.returncode == 0, done
    assert "pip's setting keyring has no match in uv" in done.stdout
    assert "uv pip" not in checkout.calls()


def uv_settings(text: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "uv_settings.py"],
        input=text,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_uv_gets_pips_settings() -> None:
    done = uv_settings(
        "global.index-url='https://mirror/simple'\n"
        "global.find-links='\\nhttps://a/\\nhttps://b/'\n"
        "install.trusted-host='a b'\n"
        ":env:.cert='/etc/ca.pem'\n"
        "global.proxy='http://proxy:3128'\n"
        "global.timeout='60'\n"
        "download.dest='/tmp'\n"
    )
    assert done.returncode == 0, done
    assert done.stdout == SETTINGS_OF_ALL + (
        "UV_DEFAULT_INDEX=https://mirror/simple\n"
        "UV_FIND_LINKS=https://a/,https://b/\n"
        "ALL_PROXY=http://proxy:3128\n"
        "UV_INSECURE_HOST=a b\n"
        "SSL_CERT_FILE=/etc/ca.pem\n"
    )


def test_uv_gets_the_certificates_that_pip_takes_from_the_environment() -> None:
    done = uv_settings("", REQUESTS_CA_BUNDLE="/etc/ca.pem")
    assert done.stdout == SETTINGS_OF_ALL + "SSL_CERT_FILE=/etc/ca.pem\n"


def test_the_environment_outranks_pips_files() -> None:
    # In the order of `pip config list`.
    done = uv_settings(
        ":env:.index-url='https://env/'\n"
        "global.index-url='https://file/'\n"
        "install.index-url='https://install/'\n"
    )
    assert done.stdout == SETTINGS_OF_ALL + "UV_DEFAULT_INDEX=https://env/\n"


def test_another_python(checkout: Checkout) -> None:
    line = checkout.refusal("setup", VERSION="3.13")
    assert re.fullmatch(
        "setup: needs Python 3.11, and .*/python3.11 is 3.13: set BACKBONED_PYTHON to "
        "a Python 3.11, and remove .venv if there is one",
        line,
    )


def test_no_python(checkout: Checkout) -> None:
    line = checkout.refusal("setup", BACKBONED_PYTHON="/nowhere/python3")
    expected = "/nowhere/python3 does not run: set BACKBONED_PYTHON to a Python 3.11"
    assert line == f"setup: {expected}"


def test_no_debian(checkout: Checkout) -> None:
    checkout.remove("apt-get")
    line = checkout.refusal("setup")
    assert "needs Debian 12, and there is no apt-get here: build the container" in line


def test_no_sudo(checkout: Checkout) -> None:
    checkout.stub("dpkg-query", "#!/bin/sh\nexit 1\n")
    checkout.stub("id", "#!/bin/sh\necho 1000\n")
    checkout.remove("sudo")
    line = checkout.refusal("setup", "demo")
    assert "let root run apt-get install ca-certificates cmake g++" in line
    assert "clang" not in line


def test_sudo_that_refuses(checkout: Checkout) -> None:
    checkout.stub("dpkg-query", "#!/bin/sh\nexit 1\n")
    checkout.stub("id", "#!/bin/sh\necho 1000\n")
    checkout.stub("sudo", "#!/bin/sh\nexit 1\n")
    line = checkout.refusal("setup", "demo")
    assert "sudo refuses: let root run apt-get install ca-certificates" in line


def test_debian_packages_come_through_the_proxy(checkout: Checkout) -> None:
    checkout.stub("dpkg-query", "#!/bin/sh\nexit 1\n")
    checkout.stub("id", "#!/bin/sh\necho 1000\n")
    checkout.stub("sudo", '#!/bin/sh\n[ "$1" = -v ] || exec env -u https_proxy "$@"\n')
    checkout.stub("apt-get", '#!/bin/sh\necho "apt-get $1 $http_proxy" >>"$CALLS"\n')
    done = checkout.run("setup", "demo", https_proxy="http://proxy:3128")
    assert done.returncode == 0, done
    assert "apt-get update http://proxy:3128\napt-get install http" in checkout.calls()


@pytest.mark.parametrize("program", ["g++", "cmake", "ninja", "protoc"])
def test_no_compiler(checkout: Checkout, program: str) -> None:
    checkout.remove(program)
    line = checkout.refusal("build", "--server")
    assert line == (
        f"build: there is no {program} on the PATH: add the folder that has it, "
        "/usr/bin on Debian"
    )


def test_no_space(checkout: Checkout) -> None:
    checkout.stub("df", "#!/bin/sh\necho Avail\necho 4000000\n")
    line = checkout.refusal("setup")
    assert f"needs 7 GB of disk, and {checkout.root} has 3 GB free: make room" in line
    assert not (checkout.root / ".venv").exists()


def test_a_disk_that_fills(checkout: Checkout) -> None:
    checkout.stub("cmake", "#!/bin/sh\ncat /etc/passwd >/dev/full\n")
    line = checkout.refusal("build", "--server")
    assert "configure release failed: the disk is full: make room, and run" in line


def test_a_disk_that_fills_while_the_compiler_runs(checkout: Checkout) -> None:
    full = "cc1plus: error: x.s: No space left on device"
    checkout.stub(
        "cmake", f'#!/bin/sh\n[ "$1" != --build ] || {{ echo {full}; exit 1; }}\n'
    )
    checkout.stub("ninja", "#!/bin/sh\necho '[1/1] backboned'\n")
    line = checkout.refusal("build", "--server")
    assert line.startswith("build: the release build failed: the disk is full: make")


def test_a_build_that_cannot_begin(checkout: Checkout) -> None:
    checkout.stub("cmake", "#!/bin/sh\n")  # Leaves nothing for ninja.
    line = checkout.refusal("build", "--server")
    assert line.startswith("build: cannot build: ninja: ")


def test_a_certificate_that_nobody_knows(checkout: Checkout) -> None:
    checkout.stub("cmake", "#!/bin/sh\necho certificate verify failed: x; exit 1\n")
    line = checkout.refusal("build", "--server")
    assert "does not know: set PIP_CERT to a file with the authority's" in line


# pip's own words, of a port on which nobody listens.
NOWHERE = "http://127.0.0.1:9"


def test_no_network(checkout: Checkout, tmp_path: Path) -> None:
    line = checkout.refusal(
        "setup", REAL_PIP=str(tmp_path), PIP_INDEX_URL=f"{NOWHERE}/simple"
    )
    assert "failed: no connection: this machine needs the network once" in line


def test_a_proxy_that_does_not_answer(checkout: Checkout, tmp_path: Path) -> None:
    line = checkout.refusal(
        "setup",
        REAL_PIP=str(tmp_path),
        PIP_INDEX_URL="https://index.invalid/simple",
        https_proxy="http://user:secret@127.0.0.1:9",
    )
    assert "no connection through the proxy 127.0.0.1:9: mend or unset" in line
    assert "secret" not in line


def test_demo_says_what_it_does_and_builds_the_server_alone(checkout: Checkout) -> None:
    checkout.stub("cmake", '#!/bin/sh\necho "cmake $*" >>"$CALLS"\n')
    checkout.stub("ninja", "#!/bin/sh\necho '[1/1] backboned'\n")
    done = checkout.run("demo", "--short")
    assert done.returncode == 0, done
    assert re.match("demo: installs packages .*: about [0-9]+ (s|min) in", done.stdout)
    calls = checkout.calls()
    assert "cmake --preset release -DBACKBONED_TESTS=OFF" in calls
    assert "--preset release --target backboned backboned_native\n" in calls
    assert calls.endswith("python -m backboned.demo --short\n")


def open_once_read(pipe: Path) -> int:
    """Open a pipe for writing, as soon as somebody reads it."""
    for _ in range(600):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(pipe)


def test_ctrl_c_ends_what_a_step_runs(checkout: Checkout, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    checkout.stub("cmake", f"#!/bin/sh\nexec cat {pipe}\n")
    program = subprocess.Popen(
        [checkout.root / "scripts" / "build", "--server"],
        env=checkout.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    writer = open_once_read(pipe)
    os.killpg(program.pid, signal.SIGINT)
    program.wait(timeout=60)
    with pytest.raises(BrokenPipeError):
        for _ in range(200):
            os.write(writer, b"x")
            time.sleep(0.05)
    os.close(writer)


def test_a_bar_on_a_terminal(checkout: Checkout) -> None:
    checkout.stub("cmake", "#!/bin/sh\nsleep 0.5\n")
    checkout.stub("ninja", "#!/bin/sh\necho ninja: no work to do.\n")
    command = str(checkout.root / "scripts" / "build")
    done = subprocess.run(
        ["script", "-qec", f"{command} --server", "/dev/null"],
        env=checkout.environment | {"TERM": os.environ.get("TERM", "dumb")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"configure release \[[# ]{20}\] 0 s of about 3 s", done.stdout)
