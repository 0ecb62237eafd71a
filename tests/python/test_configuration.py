"""The server's options from a file: --config, --check-config, SIGHUP."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from kept_server import KeptServer
from waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture
def run(binary, tmp_path):
    """Runs the program on a file of the text, until it ends."""

    def run_program(text, *options, **variables):
        path = tmp_path / "backboned.yaml"
        path.write_text(text)
        return subprocess.run(
            [binary, "--config", path, *options],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_program


def effective(run, text, *options, **variables):
    ended = run(text, "--check-config", *options, **variables)
    assert ended.returncode == 0, ended.stderr
    return yaml.load(ended.stdout, Loader=yaml.BaseLoader)


def test_each_kind_of_value_is_read(run, tmp_path):
    found = effective(
        run,
        f"""
        # A lab's server.
        listen: [unix:{tmp_path}/a, unix:{tmp_path}/b]
        max-tapes: 10
        max-tape-bytes: 1GiB
        idle-ttl: 30m
        deterministic: true
        reflection: no
        share: {{anna: 2, bert: 0.5}}
        """,
    )
    assert found["listen"] == [f"unix:{tmp_path}/a", f"unix:{tmp_path}/b"]
    assert found["max-tapes"] == "10" and found["idle-ttl"] == "30m"
    assert found["max-tape-bytes"] == str(1 << 30)
    assert found["deterministic"] == "true"
    assert found["share"] == ["anna=2", "bert=0.5"]
    assert found["max-calls"] == "256"  # Its default.


def test_what_is_printed_means_the_same_as_a_file(run):
    found = effective(run, "max-tapes: 10\nshare: {anna: 2}\n")
    assert effective(run, yaml.safe_dump(found)) == found


def test_command_line_before_environment_before_file(run):
    text = "max-tapes: 1\nmax-calls: 2\nmax-queued: 3\n"
    variables = {"BACKBONED_MAX_TAPES": "10", "BACKBONED_MAX_CALLS": "20"}
    found = effective(run, text, "--max-tapes=100", **variables)
    assert found["max-tapes"] == "100"
    assert found["max-calls"] == "20"
    assert found["max-queued"] == "3"


@pytest.mark.parametrize(
    "text, said",
    [
        ("threads: 1\nmax-tape: 5", 'line 2: no option "max-tape"; did you mean max-'),
        ("max-tapes: many", 'line 1: max-tapes: "many" is not a whole number above 0'),
        ("\nidle-ttl: soon", 'line 2: idle-ttl: "soon" is not a duration'),
        ("max-tapes: 1\nmax-tapes: 2", "line 2: max-tapes is there twice"),
        ("max-tapes:", "line 1: max-tapes: a value is missing here"),
        ("max-tapes: [[1]]", "line 1: max-tapes: a value is missing here"),
        ("- max-tapes", "line 1: a configuration has lines OPTION: VALUE"),
        ("threads: 1\n  a: [", "line 2: illegal map value"),
        ("max-tapes: 5\n---\nthreads: 1", "line 3: this is a second document"),
        ("share: {anna: 1, anna: 2}", "line 1: share: anna is there twice"),
        ("\nmax-tapes: '5 '", "line 2: "),
        ("\ndeterministic: maybe", "line 2: "),
        ("\ndeterministic: [true, false]", "line 2: "),
        ("check: x", 'line 1: no option "check"'),
        ("config: x", 'line 1: no option "config"'),
    ],
)
def test_a_mistake_is_refused_with_its_line(run, text, said):
    ended = run(text)
    assert ended.returncode == 2
    assert f"backboned: --config: {said}" in ended.stderr


def test_a_file_that_is_not_there_is_refused(run, binary):
    for given in (["--config=/no/such"], []):
        ended = subprocess.run(
            [binary, *given],
            env={**os.environ, "BACKBONED_CONFIG": "/no/such"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 2 and "--config: /no/such" in ended.stderr


def test_a_file_that_can_be_read_once_only_is_refused(binary, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([binary, "--config", pipe], stderr=subprocess.PIPE) as ended:
        pipe.write_text("threads: 1\n")
        assert b"is no regular file" in ended.stderr.read()
    assert ended.returncode == 2


@pytest.mark.parametrize(
    "text, said",
    [
        ("instance: seq-nmist", "did you mean"),
        ("instance: seq-mnist=Not/AName", "--instance seq-mnist=Not/AName"),
        ("state-dir: /no/such", "--state-dir /no/such is no folder"),
        ("users: /no/such", "--users"),
        ("listen: nowhere", "--listen"),
    ],
)
def test_check_config_looks_at_what_options_name(run, text, said):
    ended = run(text, "--check-config")
    assert ended.returncode == 2 and said in ended.stderr
    assert ended.stdout == ""


@pytest.fixture
def kept(binary, tmp_path):
    with KeptServer(binary, tmp_path) as kept:
        kept.file = tmp_path / "backboned.yaml"
        kept.options.append(f"--config={kept.file}")
        yield kept


def await_log(kept, text):
    wait_until(lambda: text in kept.log())


def test_sighup_reads_the_file_again(kept):
    kept.file.write_text("idle-ttl: 1h\nmax-tapes: 5\n")
    client = kept.start().connect()
    client.create("seq-mnist", name="net", seed=0, module=False)
    kept.file.write_text("idle-ttl: 1s\nmax-tapes: 6\n")
    kept.process.send_signal(signal.SIGHUP)
    await_log(kept, "idle-ttl is now 1s")
    await_log(kept, "max-tapes is 6 from the next start on")
    await_log(kept, "asleep instance=local/net")
    assert client.info().limits["max_tapes"] == 5
    kept.file.write_text("log-level: loud\n")
    kept.process.send_signal(signal.SIGHUP)
    await_log(kept, "line 1: log-level")
    await_log(kept, "stays as it was")
    kept.file.write_text("log-level: error\nmax-tapes: 5\n")
    kept.process.send_signal(signal.SIGHUP)
    await_log(kept, "log-level is now error")
    for _ in range(10):
        client.info()
    assert kept.end() == 0
    assert "log-level is now error" in kept.log().splitlines()[-1]


def test_sighup_without_a_file_ends_nobody(kept):
    kept.options.clear()
    client = kept.start().connect()
    kept.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert client.info().version


def test_the_page_has_the_table_of_the_program(binary):
    table = subprocess.run(
        [binary, "--print-options"], capture_output=True, text=True, env={}
    ).stdout
    shown = re.search(r"^\| key .*?(?=\n\n)", PAGE.read_text(), re.M | re.S)
    assert shown[0] + "\n" == table, "backboned --print-options prints it"
