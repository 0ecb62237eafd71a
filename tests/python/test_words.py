"""Tests of scripts/words.py."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(root: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "words.py", root],
        capture_output=True,
        text=True,
        check=False,
    )


def complaints(root: Path, file: str, text: str) -> str:
    subprocess.run(["git", "init", "--quiet", root], check=True)
    (root / file).write_text(text)
    subprocess.run(["git", "-C", root, "add", file], check=True)
    result = check(root)
    assert result.returncode == (1 if result.stdout else 0)
    return result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "// Escapes a string from a client. What for? See errors.h.\n",
        "// Shares of the device.\n//\n// A run's share goes to those who wait.\n",
        '// A link.\nconst char* kPage = "https://What.example";\n',
    ],
)
def test_accepts_good_words(tmp_path: Path, text: str) -> None:
    assert complaints(tmp_path, "a.h", text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "# What to do\n\nWait, and ask who is there.\n",
        "What is a tape? A forward that is kept.\n",
        "Run it:\n\n    What is this\n\n```\nWho am I\n```\n",
        "| what | who |\n| --- | --- |\n| a share | whose label it bears |\n",
    ],
)
def test_accepts_good_words_on_a_page(tmp_path: Path, text: str) -> None:
    assert complaints(tmp_path, "a.md", text) == ""


@pytest.mark.parametrize(
    "text",
    [
        '"""A tape. What for? See the page."""\n',
        'def f():\n    """Say whether it is.\n\n    - `a`: what is.\n    """\n',
        'print("""What is printed.""")\n',
    ],
)
def test_accepts_good_words_in_python(tmp_path: Path, text: str) -> None:
    assert complaints(tmp_path, "a.py", text) == ""


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.h", "// From text.\n", "a.h:1: the header begins with 'From'"),
        (
            "a.cc",
            "// From text.\nint a;\n// Who pays.\n",
            "a.cc:3: the sentence begins with",
        ),
        (
            "a.cc",
            "int a;  // Whose it is.\n",
            "a.cc:1: the sentence begins with a clause: Whose",
        ),
        ("a.cc", "// A share. That which\n// rests.\n", "clause: That which rests"),
        (
            "a.cc",
            "// Errors:\n//\n// * What is wrong.\n",
            "a.cc:3: the sentence begins with",
        ),
        ("a.md", "# A page\n\nA share. What\nrests.\n", "a.md:3: the sentence begins"),
        ("a.py", '"""A share. What\nrests."""\n', "a.py:1: the sentence begins with"),
        ("a.py", 'a = 1\n"""How it is."""\n', "a.py:2: the sentence begins with"),
        ("a.py", "a = 1  # Who\n# A share. Who\n# pays.\n", "a.py:2: the sentence"),
        ("a.md", "A list:\n\n- **Who** pays.\n", "a.md:3: the sentence begins with"),
        ("a.md", "| a |\n| --- |\n| Whose it is. |\n", "clause: Whose it is"),
    ],
)
def test_names_the_bad_words(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    found = complaints(tmp_path, file, text)
    assert message in found
    assert found.count("\n") == 1


def test_this_repository_keeps_the_words() -> None:
    assert check(ROOT).stdout == ""
