"""Tests of scripts/release, with stubs for what makes and tries the files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT, Checkout

VERSION = "client/python/src/backboned/version.py"


class Release(Checkout):
    """A repository with stubs for what makes and tries the files of a release."""

    STUBS = ("setup", "check", "build", "try-wheel", "try-release", "container-test")
    WHEEL = "backboned_server-$version-py3-none-manylinux_2_34_x86_64.whl"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for file in ("README.md", "docs/clients.md", "CHANGELOG.md", VERSION):
            (self.root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, self.root / file)
        (self.root / ".gitignore").write_text("/.venv/\ndist/\n")
        (self.root / "proto").mkdir()
        for script in self.STUBS:
            self.script(script, f"[ ! -e $HOME/fails-{script} ]")
        version = f"version=$(grep __version__ {VERSION} | cut -d'\"' -f2)"
        # The server's wheel is made where the source was unpacked.
        self.script(
            "wheel",
            f"""cd "$(dirname "$0")/.." && {version} && mkdir dist i.dist-info
mkdir i.dist-info/sboms && echo {{}} >i.dist-info/sboms/backboned.cdx.json
{sys.executable} -m zipfile -c "dist/{self.WHEEL}" i.dist-info""",
        )
        for program, text in {
            "python": f"""case "$*" in
*"pip wheel"*) {version}
  touch dist/backboned-$version-py3-none-any.whl dist/backboned_mammoth-$version.whl ;;
*zipfile*) exec {sys.executable} "$@" ;;
esac""",
            "buf": '[ ! -e $HOME/fails-buf ] && echo contract >"${5}"',
        }.items():
            file = self.root / ".venv/bin" / program
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"#!/bin/sh\n{text}\n")
            file.chmod(0o755)
        self.stub("debootstrap", "#!/bin/sh\n")
        self.stub("podman", "#!/bin/sh\necho image\n")
        self.environment["CONTAINER_ENGINE"] = "podman"
        (folder / ".gitconfig").write_text("[user]\nname=n\nemail=e@example.org\n")
        self.git("init", "--quiet")
        self.commit()

    def script(self, name: str, text: str) -> None:
        (self.root / "scripts" / name).write_text(f"#!/bin/sh\n{text}\n")

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "-m", "x")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def fails(self, step: str, fails: bool = True) -> None:
        mark = Path(self.environment["HOME"]) / f"fails-{step}"
        mark.touch() if fails else mark.unlink()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


def test_a_release_commits_tries_and_tags(release: Release) -> None:
    done = release.run("release", "9.8.7")
    assert done.returncode == 0, done
    assert release.git("status", "--porcelain") == ""
    commits = release.git("log", "--format=%s").splitlines()
    assert commits == [
        "tests: the client and the server of v9.8.7",
        "release: v9.8.7",
        "x",
    ]
    assert release.git("rev-parse", "v9.8.7^{commit}") == release.git(
        "rev-parse", "HEAD~1"
    )
    shown = {
        VERSION: '__version__ = "9.8.7"',
        "CHANGELOG.md": "\n## [9.8.7] - 20",
        "README.md": "backboned 9.8.7 serving on",
        "docs/clients.md": "server:     9.8.7, LibTorch",
        "proto/released/v9.8.7.binpb": "contract",
    }
    for file, text in shown.items():
        assert text in release.git("show", f"v9.8.7:{file}"), file
    kept = {file.name for file in (release.root / "tests/python/released").iterdir()}
    assert kept == {
        "backboned-9.8.7-py3-none-any.whl",
        "backboned_server-9.8.7-py3-none-manylinux_2_34_x86_64.whl",
    }
    sums = (release.root / "dist" / "SHA256SUMS").read_text()
    for part in (".tar.gz", "-image.tar.gz", "-py3-none-any.whl"):
        assert f"  backboned-9.8.7{part}\n" in sums
    # The next one replaces the server.
    assert release.run("release", "9.9.0").returncode == 0
    kept = {file.name for file in (release.root / "tests/python/released").iterdir()}
    assert "backboned-9.8.7-py3-none-any.whl" in kept and len(kept) == 3


def test_a_dry_run_leaves_the_repository_as_it_is(release: Release) -> None:
    done = release.run("release", "--dry-run")
    assert done.returncode == 0, done
    assert done.stdout.endswith("all of this was tried, and nothing is tagged\n")
    assert release.git("log", "--format=%s") == "x"
    assert release.git("tag") == ""


@pytest.mark.parametrize(
    "step", ["check", "try-wheel", "try-release", "container-test"]
)
def test_what_does_not_pass_is_not_tagged(release: Release, step: str) -> None:
    release.fails(step)
    assert release.run("release", "9.8.7").returncode == 1
    assert release.git("tag") == ""
    # After the mend it is the same release, with the contract of then.
    release.fails(step, False)
    (release.root / "proto" / "mended").touch()
    release.commit()
    assert release.run("release", "9.8.7").returncode == 0
    assert release.git("log", "--format=%s").splitlines()[1:] == [
        "x",
        "release: v9.8.7",
        "x",
    ]
    assert release.git("ls-tree", "v9.8.7", "proto/mended") != ""


def test_a_checkout_that_changes_meanwhile_is_not_tagged(release: Release) -> None:
    release.script("try-wheel", "git commit --quiet --allow-empty -m y")
    release.commit()
    line = release.refusal("release", "9.8.7")
    assert line == "release: the checkout has changed meanwhile; nothing is tagged"
    assert release.git("tag") == ""


def test_a_preparation_that_fails_leaves_nothing(release: Release) -> None:
    release.fails("buf")
    assert release.refusal("release", "9.8.7") == "release: did not prepare 9.8.7"
    assert release.git("status", "--porcelain") == ""
    assert release.git("log", "--format=%s") == "x"


def test_what_is_no_release(release: Release) -> None:
    assert "'1.0' is no version" in release.refusal("release", "1.0")
    release.git("tag", "v9.8.7")
    assert "there is a tag v9.8.7" in release.refusal("release", "9.8.7")
    (release.root / "new").touch()
    assert "commit what is not committed: ?? new" in release.refusal("release", "9.9.0")
    (release.root / "new").unlink()
    release.stub("podman", "#!/bin/sh\nexit 1\n")
    assert "a release has an image" in release.refusal("release", "9.9.0")
    release.remove("debootstrap")
    assert "there is no debootstrap" in release.refusal("release", "--dry-run")
