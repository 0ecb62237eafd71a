"""Run cards: what they say, and running again what they record."""

import copy
import json
import os
import re
import subprocess
import sys
import textwrap

import backboned
import pytest
import torch
from backboned import optim, runcard, verify
from backboned.demo import mnist

SCRIPT = """
import sys
import backboned, torch

torch.set_num_threads(1)
with backboned.local_server(threads=int(sys.argv[1])) as server:
    net = server.create("seq-mnist", seed=int(sys.argv[2]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    net.save_run_card(sys.argv[3])
"""


def python(*arguments, binary):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=dict(os.environ, BACKBONED_BIN=str(binary)),
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_verify(card, binary):
    return python("-m", "backboned", "verify", card, binary=binary)


@pytest.fixture(scope="module")
def recorded(binary, tmp_path_factory):
    """A script and the card that it wrote."""
    folder = tmp_path_factory.mktemp("card")
    script, card = folder / "train.py", folder / "made" / "card.json"
    script.write_text(textwrap.dedent(SCRIPT))
    done = python(script, 1, 0, card, binary=binary)
    assert done.returncode == 0, done.stderr
    return script, card


@pytest.fixture
def tampered(recorded, tmp_path):
    """Writes the card again with a change."""

    def change(edit):
        card = json.loads(recorded[1].read_text())
        edit(card)
        path = tmp_path / "tampered.json"
        path.write_text(json.dumps(card))
        return path

    return change


def test_card_describes_the_run(server, net):
    first = net.instance.info(digest=True).digest
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.rand(4, 1, 28, 28)).sum().backward()
    optimizer.step()
    card = json.loads(json.dumps(net.run_card()))
    info = server.info()
    assert card["server"] == {
        "version": info.version,
        "libtorch": info.torch_version,
        "device": "cpu",
        "processor": info.devices[0].description,
        "threads": info.threads,
        "uid": info.server_uid,
    }
    assert card["client"]["torch"] == torch.__version__.split("+")[0]
    assert card["client"]["threads"] == torch.get_num_threads()
    assert card["network"]["benchmark"] == "seq-mnist"
    assert card["network"]["mode"] == "mirrored" and card["network"]["seed"] == 0
    assert card["parameters"]["first"] == first
    assert card["parameters"]["last"] == net.instance.info(digest=True).digest != first
    assert card["counts"] == {"forwards": 1, "backwards": 1, "steps": 0}
    assert card["merging"] == {"allowed": False, "merged_batches": 0}
    assert card["traffic"]["round_trips"] > 3


def test_card_of_a_hosted_network_counts_steps(net):
    optimizer = optim.SGD(net, lr=0.1)
    net(torch.rand(4, 1, 28, 28)).sum().backward()
    optimizer.step()
    card = net.run_card()
    assert card["network"]["mode"] == "hosted"
    assert card["counts"]["steps"] == 1
    assert card["parameters"]["first"] != card["parameters"]["last"]


def test_first_digest_of_a_copy_is_not_known(net):
    assert copy.deepcopy(net).run_card()["parameters"]["first"] is None


def test_same_run_is_verified(recorded, binary):
    script, card = recorded
    before = card.read_bytes()
    done = run_verify(card, binary)
    assert done.returncode == 0, done.stdout + done.stderr
    said, verified = done.stdout.splitlines()
    assert said.startswith("running: ") and f"{script} 1 0" in said
    assert re.fullmatch(r"verified: .*SHA-256 [0-9a-f]{64}", verified)
    assert card.read_bytes() == before


def test_another_thread_count_is_named(tampered, binary):
    path = tampered(lambda card: card["command"]["arguments"].__setitem__(0, "2"))
    done = run_verify(path, binary)
    assert done.returncode == verify.DIFFERS, done.stderr
    assert "server.threads differs: 1 recorded, 2 now" in done.stdout.splitlines()


def test_another_seed_is_named(tampered, binary):
    path = tampered(lambda card: card["command"]["arguments"].__setitem__(1, "7"))
    done = run_verify(path, binary)
    assert done.returncode == verify.DIFFERS, done.stderr
    lines = done.stdout.splitlines()
    assert "network.seed differs: 0 recorded, 7 now" in lines
    for name in ("parameters.first", "parameters.last"):
        assert any(
            re.fullmatch(rf"{name} differs: [0-9a-f]{{64}} recorded, .* now", line)
            for line in lines
        )
    assert lines[-1].endswith(": 3 of its fields differ")


def test_changed_script_is_named_and_not_run(tampered, tmp_path, binary):
    script = tmp_path / "other.py"
    script.write_text("raise SystemExit('it ran')")
    path = tampered(lambda card: card["command"].update(script=str(script)))
    done = run_verify(path, binary)
    assert done.returncode == verify.DIFFERS
    assert done.stdout.startswith(f"command.sha256 differs: the script {script} had ")
    assert "not run" in done.stdout and "it ran" not in done.stdout + done.stderr


def test_failing_run_is_one_sentence(tampered, binary):
    path = tampered(lambda card: card["command"].update(arguments=["1", "0"]))
    done = run_verify(path, binary)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "backboned: the recorded command ended with status 1"
    )


TAMPERINGS = {
    "unknown field": (lambda c: c.update(color="red"), "no field color in a run card"),
    "unknown inner field": (
        lambda c: c["server"].update(color="red"),
        "no field server.color in a run card",
    ),
    "missing field": (
        lambda c: c["parameters"].pop("last"),
        "the field parameters.last is missing",
    ),
    "text for a number": (
        lambda c: c["server"].update(threads="2"),
        "the field server.threads is not a whole number",
    ),
    "bool for a number": (
        lambda c: c["counts"].update(steps=True),
        "the field counts.steps is not a whole number",
    ),
    "list for a section": (lambda c: c.update(client=[]), "client is not an object"),
    "other version": (lambda c: c.update(card=9), "a run card of version 9"),
    "other module": (
        lambda c: c.update(command={"module": "os", "arguments": []}),
        "only backboned.demo is run again",
    ),
    "arguments that are no texts": (
        lambda c: c["command"].update(arguments=[1]),
        "command.arguments is not a list of texts",
    ),
    "no command": (lambda c: c.update(command=None), "records no command"),
    "no script": (
        lambda c: c["command"].update(script="/nowhere/x.py"),
        "the recorded script /nowhere/x.py cannot be read: No such file",
    ),
}


@pytest.mark.parametrize("edit, sentence", TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampered_card_is_one_sentence(tampered, edit, sentence, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)  # Nothing is executed.
    with pytest.raises(runcard.CardError, match=re.escape(sentence)):
        verify.verify(tampered(edit))


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "No such file"),
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "no text"),
        (b"[" * 100000, "not JSON"),
    ],
)
def test_what_is_no_card_is_one_sentence(tmp_path, content, sentence, capsys):
    from backboned.weights.cli import main

    path = tmp_path / "card.json"
    if content is not None:
        path.write_bytes(content)
    assert main(["verify", str(path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and sentence in errors[0]


def test_demo_writes_a_card_that_is_verified(binary, tmp_path):
    try:
        mnist.load()
    except mnist.DataError as error:
        pytest.skip(f"no MNIST: {error}")
    card = tmp_path / "card.json"
    arguments = ("--short", "--threads=2", f"--out={tmp_path}", f"--card={card}")
    done = python("-m", "backboned.demo", *arguments, binary=binary)
    assert done.returncode == 0, done.stderr
    assert f"run card: {card}" in done.stdout
    assert runcard.read(card)["command"] == {
        "module": "backboned.demo",
        "arguments": list(arguments),
    }
    done = run_verify(card, binary)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: " in done.stdout


def test_demo_without_a_server_has_no_card(binary):
    done = python("-m", "backboned.demo", "--local", "--card=x", binary=binary)
    assert done.returncode == 2 and "leave --local out" in done.stderr


def test_card_needs_the_server(start, tmp_path):
    server = start()
    net = server.create("seq-mnist", seed=0)
    server.close()
    with pytest.raises(backboned.Unavailable):
        net.save_run_card(tmp_path / "card.json")
    assert not (tmp_path / "card.json").exists()
