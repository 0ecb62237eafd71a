"""A folder with copies of the scripts, in which stubs stand for programs."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Says what it is asked for, makes an environment of itself, and installs nothing.
PYTHON = """#!/bin/sh
echo "python $*" >>"$CALLS"
case "$*" in
  -c*) echo "${VERSION-3.11}" ;;
  "-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"config list") cat "$PIP_SETTINGS" ;;
  scripts/uv_settings.py) exec "$REAL" "$@" ;;
  *"pip --version") exit "${PIP_STATUS-0}" ;;
  *"install uv=="*) [ -z "$NO_UV" ] || exit 1
    [ -z "$REAL_PIP" ] || exec "$REAL" "$@" --target "$REAL_PIP"
    cp "$UV" .venv/bin/uv ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >>"$CALLS"
exit "${UV_STATUS-0}"
"""
# Unpacks a package that has promtool.
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/bin" && cp "$0" "$3/usr/bin/promtool"
"""


class Checkout:
    """The scripts in a folder of their own, and the programs that they find."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        for part in ("scripts", "requirements"):
            shutil.copytree(ROOT / part, self.root / part)
        for file in (
            "CMakePresets.json",
            "client/mammoth/pyproject.toml",
            "client/python/pyproject.toml",
        ):
            (self.root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, self.root / file)
        self.programs = folder / "programs"
        self.programs.mkdir()
        for program in Path("/usr/bin").iterdir():
            (self.programs / program.name).symlink_to(program)
        self.calls_file = folder / "calls"
        self.calls_file.touch()
        (folder / "settings").touch()
        self.environment = {
            "PATH": str(self.programs),
            "HOME": str(folder),
            "CALLS": str(self.calls_file),
            "PIP_SETTINGS": str(folder / "settings"),
            "UV": str(self.stub("uv", UV)),
            "REAL": sys.executable,
            "BACKBONED_PYTHON": str(self.stub("python3.11", PYTHON)),
        }
        self.stub("apt-get", "#!/bin/sh\n[ $1 = download ] && >prometheus_1.deb\n")
        self.stub("dpkg-deb", DPKG_DEB)
        self.stub("dpkg-query", "#!/bin/sh\nfor p; do echo installed; done\n")
        self.stub("npm", "#!/bin/sh\n")

    def stub(self, name: str, text: str) -> Path:
        self.remove(name)
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)
        return self.programs / name

    def remove(self, name: str) -> None:
        (self.programs / name).unlink(missing_ok=True)

    def run(self, script: str, *arguments: str, **environment: str):
        self.calls_file.write_text("")
        return subprocess.run(
            [self.root / "scripts" / script, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def refusal(self, script: str, *arguments: str, **environment: str) -> str:
        """Run what must fail, and return the one line that it says then."""
        done = self.run(script, *arguments, **environment)
        assert done.returncode == 1, done
        (line,) = done.stderr.splitlines()
        return line

    def calls(self) -> str:
        return self.calls_file.read_text()
