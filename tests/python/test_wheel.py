"""The server's wheel: its launcher, what is in it, and the scripts around it."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "server" / "wheel" / "src" / "backboned_server"
VERSION = "client/python/src/backboned/version.py"

# Stands for the program: says how it was called.
PROGRAM = """\
#!/bin/sh
echo "$$ $0 $* LD_LIBRARY_PATH=$LD_LIBRARY_PATH"
"""


@pytest.fixture
def site(tmp_path):
    """A site-packages folder with the server's package, and no torch."""
    return install_server(tmp_path / "site")


def install_server(site):
    package = site / "backboned_server"
    (package / "bin").mkdir(parents=True)
    for source in LAUNCHER.glob("*.py"):
        (package / source.name).write_text(source.read_text())
    program = package / "bin" / "backboned"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return site


def install_torch(site, version, libraries=("libtorch_cpu.so",)):
    """Put what looks like a torch into a folder; importing it ends Python."""
    (site / "torch" / "lib").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text("import os; os._exit(99)")
    for library in libraries:
        (site / "torch" / "lib" / library).touch()
    info = site / f"torch-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: torch\nVersion: {version}\n")


def launch(site, *arguments, before="", **variables):
    """Start the launcher in a Python that knows nothing but a folder."""
    code = f"import site, sys; site.addsitedir({str(site)!r})\n{before}\n"
    code += "import backboned_server; backboned_server.main(sys.argv[1:])"
    program = subprocess.Popen(
        [sys.executable, "-S", "-c", code, *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = program.communicate(timeout=60)
    return program, output.strip(), errors.strip()


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0+cpu", "2.11.0+cu130"])
def test_torch_beside_the_server_is_its_torch(site, version):
    install_torch(site, version)
    program, output, errors = launch(site, "--threads", "2", LD_LIBRARY_PATH="/else")
    assert (program.returncode, errors) == (0, "")
    binary = site / "backboned_server/bin/backboned"
    # The same process, and the variable as it was.
    expected = f"{program.pid} {binary} --threads 2 LD_LIBRARY_PATH=/else"
    assert output == expected


def test_torch_that_a_pth_file_names_is_found_and_not_imported(site, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    install_torch(elsewhere, "2.11.0")
    (site / "torch.pth").write_text(f"{elsewhere}\n")
    program, output, errors = launch(site)
    assert (program.returncode, errors) == (0, "")
    assert output.endswith(f" LD_LIBRARY_PATH={elsewhere}/torch/lib")
    _, output, _ = launch(site, LD_LIBRARY_PATH="/else")
    assert output.endswith(f" LD_LIBRARY_PATH={elsewhere}/torch/lib:/else")


@pytest.mark.parametrize("version", ["2.10.0", "2.11.1+cu130", "2.11.0rc1"])
@pytest.mark.parametrize("beside", [True, False])
def test_another_torch_is_refused_with_what_to_do(site, tmp_path, version, beside):
    folder = site if beside else tmp_path / "elsewhere"
    install_torch(folder, version)
    (site / "torch.pth").write_text(f"{folder}\n")
    program, output, errors = launch(site)
    assert (program.returncode, output) == (1, "")
    assert errors == (
        f"backboned: the server needs torch 2.11.0, and {folder}/torch is {version}: "
        "pip install torch==2.11.0, or give the server an environment of its own, "
        "by uv tool install or pipx install of its wheel"
    )


def test_no_torch_is_refused_with_what_to_do(site):
    program, output, errors = launch(site)
    assert (program.returncode, output) == (1, "")
    assert errors == (
        f"backboned: the server needs torch 2.11.0, and {sys.executable} has none: "
        "pip install torch==2.11.0"
    )


def test_torch_without_its_libraries_is_refused_with_what_to_do(site):
    install_torch(site, "2.11.0", libraries=())
    program, _, errors = launch(site)
    assert program.returncode == 1
    assert re.search(r"no libtorch_cpu.so: pip install --force-reinstall", errors)


def test_torch_of_which_nothing_tells_the_version_is_refused(site):
    (site / "torch" / "lib").mkdir(parents=True)
    program, _, errors = launch(site)
    assert program.returncode == 1
    assert "torch is of a version that nothing tells: pip install" in errors


def test_version_of_torch_is_the_same_everywhere():
    text = (LAUNCHER / "__init__.py").read_text()
    version = re.search(r'^TORCH = "(.+)"$', text, re.MULTILINE)[1]
    for file, pattern in (
        ("server/wheel/pyproject.toml", r'"torch==(.+)"'),
        ("cmake/LibTorch.cmake", r"set\(torch_version (.+)\)"),
        ("Dockerfile", r" torch==([\d.]+)"),
        ("requirements/demo.txt", r"^torch==(.+)$"),
    ):
        assert set(re.findall(pattern, (ROOT / file).read_text(), re.M)) == {version}


def test_version_stands_in_one_place():
    version = re.search('__version__ = "(.+)"', (ROOT / VERSION).read_text())[1]
    listed = subprocess.run(
        ["git", "grep", "-lF", f'"{version}"', "--", "*.py", "*.toml", "*.cmake", "*.h"]
        + ["*.cc", "CMakeLists.txt", "Dockerfile", "scripts"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode > 1:
        pytest.skip("no git checkout")
    assert listed.stdout.split() == [VERSION]


@pytest.fixture(scope="module")
def deploy():
    """The modules that list and check what is in a wheel."""
    sys.path.insert(0, str(ROOT / "deploy"))
    try:
        import check_wheel
        import sbom
    finally:
        sys.path.pop(0)
    return check_wheel, sbom


SYSTEM = ["libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6"]
TORCH = ["libtorch_cpu.so", "libc10.so", "ld-linux-x86-64.so.2"]


def test_program_may_need_libc_libstdcxx_and_torch_only(deploy):
    check, sbom = deploy
    assert sbom.foreign([*SYSTEM, *TORCH]) == []
    others = ["libgrpc++.so.1.51", "libcrypto.so.3", "libc10_cuda.so", "libcares.so.2"]
    assert sbom.foreign([*SYSTEM, *others, *TORCH]) == others
    assert check.wrong_libraries("the program", [*SYSTEM, "libz.so.1"], []) == [
        "the program needs libz.so.1, which a bare system lacks"
    ]
    grafted = "backboned_server.libs/libz-0a1b2c3d.so.1"
    assert check.wrong_libraries("it", ["libz-0a1b2c3d.so.1"], [grafted]) == []


def test_program_must_find_the_torch_beside_it(deploy):
    check, _ = deploy
    path = "$ORIGIN/../../torch/lib"
    assert check.wrong_path({"RPATH": ["$ORIGIN/../lib", path]}) == []
    assert "lacks" in check.wrong_path({"RPATH": ["$ORIGIN/../lib"]})[0]
    assert "lacks" in check.wrong_path({"RUNPATH": [path]})[0]
    assert "RUNPATH" in check.wrong_path({"RPATH": [path], "RUNPATH": ["/x"]})[0]


def test_each_part_must_have_its_licence(deploy):
    check, _ = deploy
    names = ["i.dist-info/licenses/libabsl-dev/copyright"]
    assert check.missing_licenses(["libabsl-dev"], names, "i.dist-info") == []
    assert check.missing_licenses(["libssl-dev"], names, "i.dist-info") == [
        "there is no licence of libssl-dev"
    ]


MAP = """\
Archive member included to satisfy reference by file (symbol)

server/libbackboned_server.a(server.cc.o)
                              main.cc.o (backboned::Server)
/usr/lib/x86_64-linux-gnu/libgrpc++.a(server_cc.cc.o)
                              main.cc.o (grpc::Server)
/usr/lib/gcc/x86_64-linux-gnu/12/../../../x86_64-linux-gnu/libre2.a(re2.o)
                              (re2::RE2)
LOAD /usr/lib/x86_64-linux-gnu/libunused.a
"""


def test_archives_are_those_of_which_the_linker_took_something(deploy):
    _, sbom = deploy
    names = {archive.name for archive in sbom.archives(MAP)}
    assert names == {"libgrpc++.a", "libre2.a"}


def test_libraries_are_carried_with_those_that_they_need(deploy, tmp_path):
    _, sbom = deploy
    for source in ("int a() { return 1; }", "int b() { return a(); }", "int main() {}"):
        (tmp_path / f"{source[4]}.c").write_text(source)
    for command in ("-shared a.c -o liba.so", "-shared b.c -L. -la -o libb.so"):
        build = ["gcc", "-w", "-fPIC", *command.split(), f"-Wl,-rpath,{tmp_path}"]
        subprocess.run(build, cwd=tmp_path, check=True)
    build = ["gcc", "m.c", "-L.", "-Wl,--no-as-needed", "-lb", f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(build, cwd=tmp_path, check=True)
    assert sbom.libraries(tmp_path / "a.out") == {
        tmp_path / "liba.so",
        tmp_path / "libb.so",
    }


def test_the_client_has_the_licence():
    licence = (ROOT / "LICENSE").read_text()
    assert (ROOT / "client/python/LICENSE").read_text() == licence


def test_what_belongs_to_no_package_is_refused(deploy, tmp_path):
    _, sbom = deploy
    archive = tmp_path / "libown.a"
    archive.touch()
    with pytest.raises(SystemExit, match="libown.a is in the program and of no pack"):
        sbom.owners([archive])


def test_program_beside_python_comes_before_the_path(monkeypatch, tmp_path):
    from backboned.transport.local import find_binary

    for folder in ("scripts", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "backboned").touch(mode=0o755)
    monkeypatch.delenv("BACKBONED_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    assert find_binary() == tmp_path / "scripts" / "backboned"
    (tmp_path / "scripts" / "backboned").unlink()
    assert find_binary() == tmp_path / "path" / "backboned"


def test_packages_of_files_are_found_where_usr_is_merged(deploy):
    """zlib1g says that its library is in /lib, which is a link to /usr/lib."""
    _, sbom = deploy
    (zlib,) = Path("/usr/lib").glob("*-linux-gnu/libz.so.1")
    assert sbom.owners([zlib.resolve()]) == {"zlib1g"}


def test_wheels_of_server_and_client_are_checked(deploy, tmp_path, capsys):
    check, _ = deploy
    wheel = tmp_path / f"backboned-1.2.3{check.TAG}"
    info = "backboned-1.2.3.dist-info"
    parts = [{"name": "libssl3", "purl": "pkg:deb/debian/libssl3@3"}]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(shutil.which("gcc"), f"backboned/transport/{check.CLIENT}")
        archive.writestr(f"{info}/{check.GRAFTED}", json.dumps({"components": parts}))
    assert check.check(wheel) == ["there is no licence of libssl3"]
    assert "1 parts, 1 faults" in capsys.readouterr().out
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(f"{info}/licenses/licenses/libssl3/copyright", "")
    assert check.check(wheel) == []
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(shutil.which("gcc"), f"backboned/transport/{check.CLIENT}")
        archive.writestr(f"{info}/{check.GRAFTED}", json.dumps({"components": []}))
    assert check.check(wheel) == ["its list names no part"]
