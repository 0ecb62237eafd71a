"""docs/clients.md agrees with the contract."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page():
    return (ROOT / "docs" / "clients.md").read_text()


def test_error_table_has_every_reason_with_its_code(page):
    contract = (ROOT / "proto" / "backboned" / "v1" / "error.proto").read_text()
    reasons = re.findall(
        r"  // ([A-Z_]+): .*\n(?:  // .*\n)*  ERROR_REASON_(\w+) = [1-9]", contract
    )
    # All but UNSPECIFIED have a code.
    assert len(reasons) == len(re.findall(r"ERROR_REASON_\w+ = [1-9]", contract)) > 20
    rows = re.findall(r"^\| ([A-Z_]+) \| `([A-Z_]+)` \| .+ \| .+ \|$", page, re.M)
    assert sorted(rows) == sorted(reasons)


def test_examples_that_it_names_exist(page):
    for path in re.findall(r"\]\(\.\./([^)#]+)\)", page):
        assert (ROOT / path).exists(), path
