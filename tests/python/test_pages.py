"""The Python code of the pages runs as it stands, and their links lead somewhere.

A page's blocks run one after another in one namespace and in an empty folder. Names
that a page takes as its reader's are those of `of_a_reader`; the addresses on the pages
lead to a server of the test.
"""

import copy
import hashlib
import re
import struct
import subprocess
import sys
from pathlib import Path

import backboned
import pytest
import torch
from test_faults import Phoenix
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]+))?\)")
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
).stdout.split()
PAGES = {name: (ROOT / name).read_text() for name in LISTED if (ROOT / name).exists()}
WITH_CODE = [name for name, text in PAGES.items() if FENCE.search(text)]
HOW_TO = "docs/howto-train-over-a-network.md"


def run(name, names):
    """Run the blocks of a page; an error names the page and its line."""
    text = PAGES[name]
    for block in FENCE.finditer(text):
        lines = "\n" * text[: block.start(1)].count("\n")
        exec(compile(lines + block[1], name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory):
    """The folder in which the server keeps checkpoints."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def target(binary, tmp_path_factory, state_dir):
    """A server with the weights that weights.md names."""
    folder = tmp_path_factory.mktemp("weights")
    options = [f"--weights-dir={folder}", f"--state-dir={state_dir}"]
    with backboned.local_server(binary=binary, threads=2, options=options) as server:
        net = server.create(
            architecture="resnet50-pt", num_classes=2, seed=0, random_init=True
        )
        torch.save(net.state_dict(), folder / "net.pth")
        made = [folder / "net.pth", folder / "resnet50-trunk.safetensors"]
        subprocess.run(
            [sys.executable, "-m", "backboned", "convert", *made]
            + ["--arch", "mammoth", "--trunk"],
            check=True,
            capture_output=True,
        )
        yield server.target


GRAY, COLOUR = torch.rand(8, 1, 28, 28), torch.rand(8, 3, 32, 32)
LABELS = torch.arange(8)


def of_a_reader(x):
    """Give the names that pages take as their reader's, for images `x`."""

    def train_one_epoch(net, opt=None):
        F.cross_entropy(net(x), LABELS).backward()
        if opt is not None:
            opt.step()

    return {
        **{"backboned": backboned, "copy": copy, "torch": torch, "F": F},
        **{"CrossEntropy": backboned.CrossEntropy, "train_one_epoch": train_one_epoch},
        **{"x": x, "y": LABELS, "labels": LABELS, "loader": [(x, LABELS)] * 2},
        **{
            "batches": [x, x + 1],
            "test_images": x,
            "train_head": lambda features: None,
        },
    }


OF_A_PAGE = {
    "docs/feature-cache.md": of_a_reader(COLOUR),
    "docs/optimizers.md": {
        **{"x": GRAY.numpy(), "labels": LABELS.numpy(), "y": LABELS.numpy()},
        **{"batches": [(GRAY.numpy(), LABELS.numpy())] * 2},
        "gradient_of_my_loss": lambda out: out,
    },
    "docs/remote-networks.md": of_a_reader(COLOUR),
    "docs/wire.md": {
        **{"hashlib": hashlib, "struct": struct, "dtype": 1},
        **{"shape": (1, 2), "data": struct.pack("<2f", 1, -2)},
    },
}


@pytest.fixture
def lead_to(monkeypatch):
    """Makes every address of a page lead to one server."""
    connect = backboned.connect

    def lead(target):
        monkeypatch.setattr(
            backboned, "connect", lambda _, **options: connect(target, **options)
        )
        return connect(target)

    return lead


@pytest.mark.parametrize("name", [name for name in WITH_CODE if name != HOW_TO])
def test_the_code_of_a_page_runs(
    name, target, state_dir, binary, lead_to, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKBONED_BIN", str(binary))
    with lead_to(target) as server:
        net = server.create("seq-mnist", seed=0)
        given = {"server": server, "target": target, "net": net}
        given["state_dir"] = state_dir
        run(name, {**of_a_reader(GRAY), **given, **OF_A_PAGE.get(name, {})})


@pytest.fixture
def phoenix(binary, tmp_path):
    phoenix = Phoenix(binary, tmp_path / "server.sock")
    yield phoenix
    phoenix.kill()


def test_the_how_to_resumes_after_a_lost_server(
    phoenix, lead_to, tmp_path, monkeypatch, capsys
):
    lead_to(phoenix.target).close()
    save = torch.save

    def save_and_restart(state, path):
        save(state, path)
        if state["epoch"] == 1:
            phoenix.restart()

    def outcome(folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        end = run(HOW_TO, {})["net"].get_params()
        return end, re.findall("resumed after epoch .", capsys.readouterr().out)

    whole, resumed = outcome("whole")
    assert resumed == []
    again, resumed = outcome("whole")
    assert torch.equal(again, whole) and resumed == ["resumed after epoch 3"]
    monkeypatch.setattr(torch, "save", save_and_restart)
    cut, resumed = outcome("cut")
    assert torch.equal(cut, whole) and resumed == ["resumed after epoch 1"]


def anchors(text):
    """Give the anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_somewhere(name):
    for path, anchor in LINK.findall(PAGES[name]):
        to = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert to.exists(), path
        if anchor:
            assert anchor in anchors(to.read_text()), f"{path}#{anchor}"


def test_every_page_leads_to_the_glossary():
    apart = re.compile("CHANGELOG|adr/|data/|wheel/|client/mammoth")
    pages = [name for name in PAGES if not apart.search(name)]
    found = [name for name in pages if "glossary.md" not in PAGES[name]]
    assert found == ["docs/glossary.md"]
