"""Tests of scripts/layering.py."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(root: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "layering.py", root],
        capture_output=True,
        text=True,
        check=False,
    )


def write(root: Path, file: str, *headers: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"#include {header}\n" for header in headers))


def test_accepts_includes_along_the_direction(tmp_path: Path) -> None:
    write(tmp_path, "proto/wire/reader.cc", "<span>", '"backboned/v1/tensor.pb.h"')
    write(tmp_path, "backbones/resnet.cc", "<ATen/ATen.h>", '"backbones/layout.h"')
    write(tmp_path, "server/scheduler/scheduler.h", "<absl/time/time.h>")
    write(tmp_path, "server/tapes.cc", '"backbones/state.h"', "<spdlog/spdlog.h>")
    write(tmp_path, "server/rpc/data.cc", "<grpcpp/grpcpp.h>", '"server/tapes.h"')
    write(tmp_path, "server/main.cc", '"server/rpc/data.h"', "<grpcpp/grpcpp.h>")
    write(tmp_path, "client/cpp/client.cc", '"proto/wire/reader.h"')
    write(tmp_path, "tests/a_test.cc", "<gtest/gtest.h>", '"server/rpc/data.h"')
    result = check(tmp_path)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("file", "header", "message"),
    [
        ("proto/wire/a.cc", "<ATen/ATen.h>", "proto/wire/ may not include ATen/ATen.h"),
        ("backbones/a.cc", '"server/a.h"', "backbones/ may not include server/a.h"),
        ("backbones/a.h", "<grpcpp/a.h>", "backbones/ may not include grpcpp/a.h"),
        (
            "server/scheduler/a.h",
            "<c10/core/Device.h>",
            "server/scheduler/ may not include c10/core/Device.h",
        ),
        ("server/a.cc", '"proto/wire/a.h"', "server/ may not include proto/wire/a.h"),
        (
            "server/a.cc",
            '"backboned/v1/a.pb.h"',
            "server/ may not include backboned/v1/a.pb.h",
        ),
        ("server/a.h", '"server/rpc/a.h"', "server/ may not include server/rpc/a.h"),
        ("client/cpp/a.h", "<torch/a.h>", "client/ may not include torch/a.h"),
        ("client/cpp/a.h", '"b.h"', '"b.h" must be named from the repository\'s root'),
        (
            "server/a.h",
            "<boost/a.hpp>",
            "boost/a.hpp is of no library known to scripts/layering.py",
        ),
    ],
)
def test_names_the_include_against_the_direction(
    tmp_path: Path, file: str, header: str, message: str
) -> None:
    write(tmp_path, file, "<vector>", header)
    result = check(tmp_path)
    assert (result.returncode, result.stdout) == (1, f"{file}:2: {message}\n")


def test_this_repository_keeps_the_direction() -> None:
    assert check(ROOT).stdout == ""
