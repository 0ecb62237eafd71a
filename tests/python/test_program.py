"""The server's program: its environment, its state folder, and its health check."""

import os
import pathlib
import re
import subprocess

import pytest


@pytest.fixture
def run(binary, tmp_path):
    """Runs the program until it ends, by default on a socket of its own."""

    def run_program(*arguments, **variables):
        variables.setdefault("BACKBONED_LISTEN", f"unix:{tmp_path}/s")
        return subprocess.run(
            [binary, *arguments],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_program


def test_an_unknown_variable_is_warned_of_with_the_nearest_known_one(run):
    ended = run("--listen=unix:/proc/s", BACKBONED_MAX_TAPE="3")
    assert ended.returncode == 1
    warning, end = ended.stderr.splitlines()
    assert re.search(
        r" warning .* BACKBONED_MAX_TAPE is unknown .* BACKBONED_MAX_TAPES\?$", warning
    )
    assert end.startswith("backboned: cannot listen on unix:/proc/s")


def test_each_option_is_a_known_variable(run, binary):
    listed = subprocess.run([binary, "--help"], capture_output=True, text=True).stdout
    variables = set(re.findall(r"Env:(BACKBONED_\w+)", listed))
    assert {"BACKBONED_LISTEN", "BACKBONED_STATE_DIR"} <= variables
    assert "BACKBONED_CHECK" not in variables


def test_variables_of_clients_do_not_hinder_a_server(start, monkeypatch):
    for name in ("BIN", "SERVER", "MODE", "REQUIRE_REMOTE"):
        monkeypatch.setenv(f"BACKBONED_{name}", "auto")
    monkeypatch.setenv("BACKBONED_TRANSPORT", "grpcio")
    assert start().info().version


def test_options_for_gpus_do_not_hinder_a_processor(start):
    options = ["--graph-bytes=1GiB", "--pinned-bytes=1GiB", "--deterministic"]
    server = start(device="cpu", options=options)
    assert server.create("seq-mnist", module=False).get_params().any()


def test_state_folder_that_cannot_be_written_is_one_sentence(run):
    ended = run("--state-dir", "/proc/self")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "--state-dir /proc/self is no folder in which user" in line


def test_a_state_folder_is_the_servers_alone(start, tmp_path):
    server = start(options=[f"--state-dir={tmp_path}"])
    server.create("seq-mnist", module=False).save("a")
    assert {path.name for path in tmp_path.iterdir()} >= {
        *("aside", "blobs", "format", "lock", "records"),
    }
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_check_asks_the_server_that_listens_where_the_environment_says(run, start):
    server = start()
    ended = run("--check", BACKBONED_LISTEN=server.target)
    assert (ended.returncode, ended.stdout) == (0, f"{server.target} serves\n")
    assert ended.stderr == ""


def test_check_asks_the_server_that_is_named(run, start):
    server = start()
    assert run("--check", server.target).returncode == 0


def test_check_of_nobody_is_one_sentence(run, tmp_path):
    ended = run("--check")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"backboned: unix:{tmp_path}/s does not answer: ")


def seconds(text):
    """Reads what the help and the page say of times: `10m`, `60 s`, `1 h`, `inf`."""
    if text.startswith("inf"):
        return float("inf")
    number, unit = re.match(r"(\d+) ?([smh])", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def test_the_page_has_each_limit_with_its_default(binary):
    listed = subprocess.run([binary, "--help"], capture_output=True, text=True).stdout
    defaults = dict(re.findall(r"^  --([\w-]+) .*=(\S+) \(Env:", listed, re.M))
    page = (pathlib.Path(__file__).parents[2] / "docs/limits.md").read_text()
    told = dict(re.findall(r"^\| `--([\w-]+)` \| (.*?) \|", page, re.M))
    limits = r"(max-(?!batch|delay-us).*|.*-ttl|(stall|drain)-timeout)"
    assert set(told) == {name for name in defaults if re.fullmatch(limits, name)}
    for name, text in told.items():
        if name == "max-memory-bytes":
            assert text.startswith("9/10 of the machine's memory")
        elif name.endswith(("-ttl", "-timeout", "-age")):
            assert seconds(text) == seconds(defaults[name]), name
        else:
            number, giga = re.match(r"(\d+)( GiB)?", text).groups()
            assert int(number) << (30 if giga else 0) == int(defaults[name]), name
