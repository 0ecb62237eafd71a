"""Fixtures: one front for all cases that leave it as it is, and fronts of one's own."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from stand import Stand


@pytest.fixture(scope="session")
def stand():
    """A front with JSON, for at most 100 connections."""
    with Stand("--json", "--max-connections", "100") as made:
        yield made


@pytest.fixture
def own_stand():
    """A front that a case may change."""
    with Stand() as made:
        yield made


@pytest.fixture(scope="session")
def alice(stand):
    """The metadata of alice, by a token."""
    return (("authorization", f"Bearer {stand.token('alice')}"),)


@pytest.fixture(scope="session")
def bobs(stand):
    """The certificate of bob, and its key."""
    return stand.lab.issue("bob", "DNS:bob,URI:backboned://principal/bob")
