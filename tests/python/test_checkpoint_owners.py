"""Checkpoints belong to whom saved them."""

import grpc
import pytest
from backboned.errors import NotFound, Refused, ResourceExhausted
from backboned.v1 import instance_service_pb2
from kept_server import KeptServer
from test_checkpoints import fill, saved, small, value_of

USERS = """
users:
  alice: {quota: 0.25}
  bob: {}
  carol: {rights: infer}
  dora: {rights: admin}
"""


@pytest.fixture
def kept(binary, tmp_path):
    (tmp_path / "users.yaml").write_text(USERS)
    options = [f"--users={tmp_path}/users.yaml", "--max-checkpoint-bytes=200000"]
    for name in ("alice", "bob", "carol", "dora"):
        options.append(f"--listen=unix:{tmp_path}/{name}.sock,principal={name}")
    with KeptServer(binary, tmp_path, *options) as kept:
        yield kept.start()


@pytest.fixture
def alice(kept):
    with kept.connect("alice", reconnect_timeout=30) as alice:
        yield alice


@pytest.fixture
def bob(kept):
    with kept.connect("bob", reconnect_timeout=30) as bob:
        yield bob


def test_equal_names_of_two_owners_are_two_things(kept, alice, bob):
    for value, owner in enumerate((alice, bob)):
        small(owner, value).save("a")
    small(bob, 7).save("bobs")
    for value, owner in enumerate((alice, bob)):
        assert value_of(owner.load("a", module=False)) == value
    assert [c.owner for c in alice.checkpoints()] == ["alice"]
    assert [*saved(bob)] == ["a", "bobs"]
    alice.delete_checkpoint("a")
    assert [*saved(bob)] == ["a", "bobs"]
    kept.restart(alice, bob)
    assert value_of(bob.load("a", module=False)) == 1
    assert alice.checkpoints() == []


@pytest.mark.parametrize("name", ["bobs", "bob/bobs", "nobody/bobs"])
def test_anothers_is_not_there(kept, alice, bob, name):
    small(bob, 7).save("bobs")
    number = bob.checkpoints()[0].number
    for call in (
        lambda: alice.load(name),
        lambda: alice.load(name, number=number),
        lambda: alice.delete_checkpoint(name),
        lambda: alice.delete_checkpoint(name, number),
    ):
        with pytest.raises(NotFound) as error:
            call()
        assert error.value.reason == "CHECKPOINT_NOT_FOUND"
        assert "did you mean" not in error.value.message
    assert alice.checkpoints() == []
    assert value_of(bob.load("bob/bobs", module=False)) == 7


def test_an_admin_sees_all_and_names_the_owner(kept, alice, bob):
    for value, owner in enumerate((alice, bob)):
        small(owner, value).save("a")
    with kept.connect("dora") as dora:
        assert [c.owner for c in dora.checkpoints()] == ["alice", "bob"]
        with pytest.raises(NotFound):
            dora.load("a")
        net = dora.load("bob/a", module=False)
        assert (value_of(net), net.owner) == (1, "dora")
        dora.delete_checkpoint("alice/a")
    assert alice.checkpoints() == []
    assert [*saved(bob)] == ["a"]


def test_what_is_saved_of_anothers_is_the_savers(kept, alice, bob):
    net = small(bob, 5, name="net")
    net.update(shared=True)
    alice.instance("bob/net", module=False).save("theirs")
    fill(net, 6)
    assert bob.checkpoints() == []
    loaded = alice.load("theirs", module=False)
    assert (value_of(loaded), loaded.owner) == (5, "alice")


def test_the_right_to_infer_saves_and_loads_nothing(kept, alice):
    small(alice, 1).save("a")
    with kept.connect("carol") as carol:
        for call in (lambda: carol.load("a"), lambda: carol.delete_checkpoint("a")):
            with pytest.raises(Refused, match="right to infer"):
                call()
        assert carol.checkpoints() == []


def test_a_principal_has_its_part_of_the_room(kept, alice, bob):
    def fill_up(owner):
        net = small(owner)
        for number in range(20):
            try:
                net.save(f"a-{number}")
            except ResourceExhausted as error:
                assert error.reason == "LIMIT_REACHED"
                assert "max-checkpoint-bytes" in error.message
                return number
        raise AssertionError("there is no end")

    size = small(alice).save("first").bytes
    assert fill_up(alice) == 50000 // size - 1
    assert fill_up(bob) >= 100000 // size
    alice.delete_checkpoint("first")
    small(alice).save("again")
    kept.restart(alice)
    with pytest.raises(ResourceExhausted):
        small(alice).save("more")


def test_the_owner_is_told_what_is_used(kept, alice):
    made = small(alice).save("a")
    with grpc.insecure_channel(kept.target("alice")) as channel:
        call = channel.unary_unary(
            "/backboned.v1.InstanceService/GetServer",
            instance_service_pb2.GetServerRequest.SerializeToString,
            instance_service_pb2.GetServerResponse.FromString,
        )
        usage = call(instance_service_pb2.GetServerRequest()).principal_usage
    assert usage.checkpoint_bytes == made.bytes
