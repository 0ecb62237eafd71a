"""The architecture that docs/architectures.md lets a newcomer add."""

import subprocess
from pathlib import Path

from checkout import ROOT


def test_it_applies_and_touches_what_the_page_names():
    done = subprocess.run(
        ["git", "apply", "--numstat", "--check", "docs/examples/conv4.patch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    touched = [line.split("\t")[2] for line in done.stdout.splitlines()]
    page = (ROOT / "docs" / "architectures.md").read_text()
    section = page[page.index("### One to repeat") :]
    assert len(touched) == 9
    assert [file for file in touched if Path(file).stem not in section] == []
