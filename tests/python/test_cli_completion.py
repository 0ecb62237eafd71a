"""backbonectl completion and man: shells complete what the program takes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from backbonectl_runs import Control


@pytest.fixture
def ctl(backbonectl, server, tmp_path):
    """The program, on the path of shells, and a server that has an instance."""
    server.create("seq-mnist", name="the-network", exist_ok=True, module=False)
    control = Control(backbonectl, server.target, tmp_path)
    folder = backbonectl.resolve().parent
    control.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    return control


LINES = [
    ("backbonectl che", {"checkpoint"}),
    ("backbonectl checkpoint ", {"save", "load", "ls", "rm"}),
    ("backbonectl completion ", {"bash", "zsh", "fish"}),
    ("backbonectl create --dtype f", {"float32", "float64", "float16"}),
    ("backbonectl params get --out", {"--output"}),
    ("backbonectl params set the-network w", {"weights.safetensors"}),
    ("backbonectl params get the-network -o w", {"weights.safetensors"}),
    ("backbonectl show the-n", {"the-network"}),
    ("backbonectl rm the-network the-n", {"the-network"}),
    ("backbonectl health --instance the-n", {"the-network"}),
    ("backbonectl show --server unix:/no/such the-n", set()),
    ("backbonectl clone the-network the-n", set()),
]


@pytest.fixture
def complete(ctl, tmp_path):
    """Gives what a shell offers: a script with `{source}` and `{line}`."""
    (tmp_path / "weights.safetensors").touch()

    def completed(shell, script, line):
        source = tmp_path / f"completion.{shell}"
        source.write_text(ctl("completion", shell))
        ended = subprocess.run(
            [shell, "-c", script],
            env={**ctl.environment, "SOURCE": str(source), "LINE": line},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return set(ended.stdout.splitlines())

    return completed


BASH = """
source "$SOURCE"
COMP_LINE=$LINE COMP_POINT=${#LINE}
read -ra COMP_WORDS <<<"$LINE"
[[ $LINE != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
registered=$(complete -p backbonectl)
[[ $registered =~ -F\\ ([^ ]+) ]] && "${BASH_REMATCH[1]}" backbonectl
printf '%s\\n' ${COMPREPLY[@]+"${COMPREPLY[@]}"}
"""


@pytest.mark.parametrize(("line", "offered"), LINES)
def test_bash(complete, line, offered):
    assert complete("bash", BASH, line) - {""} == offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("backbonectl create --dtype=b", {"bfloat16"}),
        ("backbonectl ls --server unix:", set()),
        ("backbonectl show --connection=no.yaml the-n", set()),
    ],
)
def test_words_that_bash_would_cut(complete, line, offered):
    assert complete("bash", BASH, line) - {""} == offered


FISH = """
source $SOURCE
complete -C $LINE
"""


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("line", "offered"), LINES)
def test_fish(complete, line, offered):
    offers = {offer.partition("\t")[0] for offer in complete("fish", FISH, line)}
    assert offers == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(complete):
    """Offers are seen by a terminal alone: here the script is read, and registered."""
    script = """
autoload -Uz compinit && compinit -u -D
source $SOURCE && print ${_comps[backbonectl]}
"""
    assert complete("zsh", script, "") == {"_backbonectl"}


def test_scripts_know_all_commands(ctl):
    """Each command and option of --help, however deep, is in each script."""
    scripts = [ctl("completion", shell) for shell in ("bash", "zsh", "fish")]
    page = ctl("man")

    def visit(*path):
        text = ctl(*path, "--help")
        below = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.M)
        for option in re.findall(r"^  (?:-\w,)?--([a-z-]+)", text, re.M):
            assert f" --{option} " in scripts[0].replace("'", " "), (path, option)
            assert f")--{option}" in scripts[1] or f"*--{option}" in scripts[1]
            assert f" -l {option} " in scripts[2], (path, option)
            assert "\\-\\-" + option.replace("-", "\\-") in page or not path
        for name in re.findall(r"^  ([a-z]+) ", below[1] if below else "", re.M):
            visit(*path, name)
        if not below:
            assert f".SS {' '.join(path)}\n" in page

    visit()


def test_the_man_page_and_the_docs_agree_on_exit_statuses(ctl):
    _, _, rest = ctl("man").partition(".SH EXIT STATUS\n")
    section, _, _ = rest.replace("\\-", "-").partition(".SH ")
    said = re.findall(r"^\.TP\n\\fB(\d+)\\fR\n(.*)$", section, re.M)
    docs = Path(__file__).parents[2] / "docs/backbonectl.md"
    assert len(said) == 9
    assert said == re.findall(r"^\| (\d+) \| (.*) \|$", docs.read_text(), re.M)


def test_the_man_page_has_no_warnings(ctl, tmp_path):
    page = ctl("man")
    for word in ("EXIT STATUS", "ENVIRONMENT", "BACKBONED_SERVER", "130"):
        assert word in page
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    file = tmp_path / "backbonectl.1"
    file.write_text(page)
    shown = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "backbonectl params get [OPTIONS] INSTANCE" in re.sub(
        "\x1b[^m]*m|.\b", "", shown.stdout
    )
