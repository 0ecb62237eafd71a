"""Connection files, and what `connect` does without a target."""

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import backboned
import pytest
from backboned import connection_file
from backboned.errors import InvalidArgument, Unavailable
from tls_front import Recorder, TlsFront

pytestmark = pytest.mark.transports


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """Let nothing of the machine's own name a server; gives the settings' folder."""
    for name in ("BACKBONED_SERVER", "BACKBONED_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "backboned"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def write(tmp_path):
    """Writes a connection file; gives its path."""

    def write_one(text, name="c.yaml"):
        file = tmp_path / name
        file.write_text(text)
        return file

    return write_one


def test_a_file_names_all_that_a_connection_needs(
    server, authority, shown, tmp_path, write
):
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "token").write_text("secret\n")
    certificate, key = (file.read_text() for file in authority.issue("of-a-file"))
    (tmp_path / "pki" / "key.pem").write_text(key)
    with Recorder(server) as recorder:
        with TlsFront(recorder.target, shown, authority.ca) as front:
            file = write(
                f"target: {front.target}\nca: {authority.ca}\nkey: pki/key.pem\n"
                "token-file: pki/token\ncertificate: |\n"
                + textwrap.indent(certificate, "  ")
            )
            for path in (file, str(file)):
                with backboned.connect(path) as secure:
                    assert secure.target == front.target
                    assert secure.create("seq-mnist", module=False)
    assert set(recorder.tokens()) == {"Bearer secret"}


def test_arguments_go_before_the_file(server, authority, shown, write):
    with Recorder(server) as recorder:
        with TlsFront(recorder.target, shown) as front:
            file = write(f"target: {front.target}\nca: /nowhere\ntoken: 0123\n")
            assert connection_file.read(file).token == "0123"
            with backboned.connect(file, ca=authority.ca) as secure:
                secure.info()
            with backboned.connect(file, ca=authority.ca, token="mine") as secure:
                secure.info()
    assert set(recorder.tokens()) == {"Bearer 0123", "Bearer mine"}


def test_no_token_of_a_file_goes_in_clear_through_tcp(server, write):
    with Recorder(server) as recorder:
        with pytest.raises(Unavailable):
            backboned.connect(
                write(f"target: {recorder.target}\ntoken: x"), reconnect_timeout=0
            )
    assert recorder.calls == []


MISTAKES = {
    "": "is no map of keys; a connection file has target, ca, certificate, key",
    "target": "is no map of keys; ",
    "target: [": "is no YAML: ",
    "? [1]\n: 2": "is no YAML: ",
    "ca: x": "there is no target; a connection file has target, ",
    "target: host:1\nports: 2": "there is no key 'ports'; a connection file has ",
    "target: [host]": "target is no text",
    "target:": "target is no text",
    "target: unix:/b\ntoken: x\ntoken-file: y": "there are a token and a token-file; ",
}


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.items())
def test_each_mistake_is_a_sentence_with_the_file(write, text, sentence):
    file = write(text)
    with pytest.raises(InvalidArgument, match=f"^{file}: {re.escape(sentence)}"):
        backboned.connect(file)


@pytest.mark.parametrize("line", ["@{}", "{}: b", '"{}', "[{}"])
def test_no_error_has_the_token(write, line):
    secret = "eyJhbGciOiJFUzI1NiJ9"
    file = write(f"target: unix:/b\ntoken: {line.format(secret)}\n")
    with pytest.raises(InvalidArgument) as refused:
        backboned.connect(file)
    assert secret not in str(refused.value)


def test_a_file_that_it_names_is_missing(write, tmp_path):
    file = write("target: host:1\nca: ca.pem")
    missing = f"^ca {tmp_path}/ca.pem cannot be read: No such file"
    with pytest.raises(InvalidArgument, match=missing):
        backboned.connect(file)


def test_a_file_that_is_not_there_is_waited_for(server, tmp_path, write):
    file = tmp_path / "ready.yml"
    with pytest.raises(Unavailable, match=f"^there is no connection file {file} "):
        backboned.connect(file)
    with pytest.raises(Unavailable, match=f"{file}; waited 0.2 s"):
        backboned.connect(str(file), wait=0.2)

    def appear():
        time.sleep(0.3)
        os.replace(write(f"target: {server.target}", "new"), file)

    writer = threading.Thread(target=appear)
    writer.start()
    with backboned.connect(file, wait=60) as other:
        assert other.info().version == backboned.__version__
    writer.join()


def test_what_names_a_server_if_the_caller_does_not(server, monkeypatch, home, write):
    with pytest.raises(InvalidArgument, match="^no server is named: give connect"):
        backboned.connect()
    (home / "connection.yaml").write_text(f"target: {server.target}")
    assert backboned.connect().target == server.target
    monkeypatch.setenv("BACKBONED_CONNECTION", "/nowhere/c")
    with pytest.raises(Unavailable, match="no connection file /nowhere/c "):
        backboned.connect()
    monkeypatch.setenv("BACKBONED_SERVER", server.target)
    assert backboned.connect().target == server.target
    monkeypatch.setenv("BACKBONED_SERVER", str(write("ca: x")))
    with pytest.raises(InvalidArgument, match="there is no target"):
        backboned.connect()


def test_the_settings_are_in_the_home_folder_unless_it_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config" / "backboned").mkdir(parents=True)
    file = tmp_path / ".config" / "backboned" / "connection.yaml"
    with pytest.raises(InvalidArgument, match=f"or write {file} "):
        connection_file.default_target()
    file.touch()
    assert connection_file.default_target() == file


def test_a_local_server_starts_where_a_connection_file_is_named(start, monkeypatch):
    monkeypatch.setenv("BACKBONED_CONNECTION", "/nowhere/c.yaml")
    assert start().info().version


def test_yaml_is_loaded_for_a_file_only():
    code = "import backboned, sys; sys.exit('yaml' in sys.modules)"
    source = Path(backboned.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)}
    )
