"""Tests of scripts/layering.py."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "layering.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def write(root: Path, file: str, *headers: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"#include {header}\n" for header in headers))


def test_accepts_includes_along_the_direction(tmp_path: Path) -> None:
    write(tmp_path, "base/digest.cc", "<openssl/evp.h>", '"base/digest.h"')
    write(tmp_path, "proto/wire/reader.cc", "<span>", '"backboned/v1/tensor.pb.h"')
    write(tmp_path, "backbones/resnet.cc", "<ATen/ATen.h>", '"backbones/layout.h"')
    write(tmp_path, "server/scheduler/scheduler.h", "<absl/time/time.h>")
    write(tmp_path, "server/limits/budget.h", '"base/errors.h"', "<spdlog/spdlog.h>")
    write(tmp_path, "server/tapes/tape.cc", '"server/limits/budget.h"')
    write(tmp_path, "server/instances/a.cc", '"server/tapes/tape.h"')
    write(tmp_path, "server/server.h", '"server/instances/a.h"')
    write(tmp_path, "server/rpc/transport/call.h", '"server/server.h"')
    write(tmp_path, "server/rpc/backbone/data.cc", '"server/rpc/transport/call.h"')
    write(tmp_path, "server/rpc/rpc_server.cc", "<grpcpp/grpcpp.h>")
    write(tmp_path, "server/main.cc", '"server/process/a.h"', "<grpcpp/grpcpp.h>")
    write(tmp_path, "client/cpp/client.cc", '"proto/wire/reader.h"')
    write(tmp_path, "tests/a_test.cc", "<gtest/gtest.h>", '"server/limits/budget.h"')
    result = check(tmp_path)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("file", "header", "message"),
    [
        ("base/a.h", '"backbones/a.h"', "base/ may not include backbones/a.h"),
        ("base/a.cc", "<ATen/ATen.h>", "base/ may not include ATen/ATen.h"),
        ("proto/wire/a.cc", "<ATen/ATen.h>", "proto/wire/ may not include ATen/ATen.h"),
        (
            "backbones/a.cc",
            '"server/limits/a.h"',
            "backbones/ may not include server/limits/a.h",
        ),
        ("backbones/a.h", "<grpcpp/a.h>", "backbones/ may not include grpcpp/a.h"),
        (
            "server/scheduler/a.h",
            "<c10/core/Device.h>",
            "server/scheduler/ may not include c10/core/Device.h",
        ),
        (
            "server/limits/a.cc",
            '"server/memory/a.h"',
            "server/limits/ may not include server/memory/a.h",
        ),
        (
            "server/tapes/a.cc",
            '"server/instances/a.h"',
            "server/tapes/ may not include server/instances/a.h",
        ),
        (
            "server/instances/a.cc",
            '"server/compute/a.h"',
            "server/instances/ may not include server/compute/a.h",
        ),
        (
            "server/compute/a.cc",
            '"server/server.h"',
            "server/compute/ may not include server/server.h",
        ),
        (
            "server/compute/a.cc",
            '"backboned/v1/a.pb.h"',
            "server/compute/ may not include backboned/v1/a.pb.h",
        ),
        ("server/a.cc", '"proto/wire/a.h"', "server/ may not include proto/wire/a.h"),
        (
            "server/a.h",
            '"server/rpc/transport/a.h"',
            "server/ may not include server/rpc/transport/a.h",
        ),
        (
            "server/rpc/convert/a.h",
            '"server/rpc/transport/a.h"',
            "server/rpc/convert/ may not include server/rpc/transport/a.h",
        ),
        (
            "server/rpc/transport/a.h",
            '"server/rpc/a.h"',
            "server/rpc/transport/ may not include server/rpc/a.h",
        ),
        ("client/cpp/a.h", "<torch/a.h>", "client/cpp/ may not include torch/a.h"),
        ("client/cpp/a.h", '"b.h"', '"b.h" must be named from the repository\'s root'),
        (
            "server/a.h",
            "<folly/a.h>",
            "folly/a.h is of no room or library known to scripts/layering.py",
        ),
        (
            "server/new_room/a.h",
            '"server/limits/a.h"',
            "no room of scripts/layering.py has server/new_room/a.h",
        ),
    ],
)
def test_names_the_include_against_the_direction(
    tmp_path: Path, file: str, header: str, message: str
) -> None:
    write(tmp_path, file, "<vector>", header)
    result = check(tmp_path)
    assert (result.returncode, result.stdout) == (1, f"{file}:2: {message}\n")


def test_names_a_circle_of_files(tmp_path: Path) -> None:
    write(tmp_path, "server/tapes/a.h")
    write(tmp_path, "server/tapes/a.cc", '"server/tapes/a.h"', '"server/tapes/b.h"')
    write(tmp_path, "server/tapes/b.h", '"server/tapes/a.h"')
    result = check(tmp_path)
    assert result.returncode == 1
    assert re.fullmatch(
        r"files include each other: (server/tapes/[ab]) <- server/tapes/[ab] <- \1\n",
        result.stdout,
    )


def test_prints_each_room_above_those_that_it_may_use() -> None:
    levels = {
        room: int(level)
        for line in check("--levels").stdout.splitlines()
        for level, *rooms in [line.split()]
        for room in rooms
    }
    path = ["base", "server/limits", "server/device", "server/instances"]
    path += ["server/compute", "server/rpc/backbone", "server/rpc"]
    assert [levels[room] for room in path] == sorted({levels[room] for room in path})
    folders = {
        file.parent.relative_to(ROOT).as_posix()
        for file in (ROOT / "server").rglob("*.cc")
    }
    assert folders <= levels.keys()


def test_rows_list_nothing_that_is_not_used() -> None:
    layering = runpy.run_path(str(ROOT / "scripts" / "layering.py"))
    used: dict[str, set[str]] = {}
    for file, _, _, header in layering["includes"](ROOT):
        owner = layering["owner_of"](header)
        used.setdefault(layering["room_of"](file), set()).add(owner)
    spare = {room: row - used[room] for room, row in layering["MAY_USE"].items() if row}
    assert not any(spare.values()), spare


def test_this_repository_keeps_the_direction() -> None:
    assert check(ROOT).stdout == ""


def test_the_page_has_the_levels_of_the_program() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text()
    shown, level = {}, ""
    for row in re.findall(r"^\| *(\d*) *\| `([a-z/0-9]+?)/`", table, re.M):
        level = row[0] or level
        shown[row[1].removesuffix("/backboned/v1")] = level
    listed = {
        room: level
        for level, *rooms in map(str.split, check("--levels").stdout.splitlines())
        for room in rooms
    }
    assert shown == {room: listed[room] for room in shown}
    assert listed.keys() - shown.keys() == {"client/examples"}
