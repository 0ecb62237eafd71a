"""Feature caches: equal inputs are neither computed nor sent a second time."""

import hashlib
import re
from pathlib import Path

import backboned
import numpy as np
import pytest
import torch
from backboned.feature_cache import ASK_BYTES, KnownAnswers, input_digest
from backboned.transport.channel import Channel
from backboned.types import Version
from backboned.v1 import backbone_service_pb2 as pb
from hosted_pairs import SMALL

ROOT = Path(__file__).parents[2]

HIT, KEPT = pb.CACHE_USE_HIT, pb.CACHE_USE_KEPT
V1, V2 = Version("u", 1, 1), Version("u", 2, 1)


@pytest.fixture
def cached(server):
    """A seq-mnist instance with a cache, for NumPy."""
    return server.create("seq-mnist", seed=0, module=False, feature_cache="1MiB")


def images(seed, count=16):
    """Some images, of more than ASK_BYTES."""
    x = np.random.default_rng(seed).random((count, 1, 28, 28), dtype=np.float32)
    assert x.nbytes >= ASK_BYTES
    return x


def travels(net, action):
    before = net.traffic
    action()
    return net.traffic - before


@pytest.mark.parametrize(
    "source",
    [{"benchmark": "seq-mnist"}, {"architecture": "resnet18", **SMALL}],
    ids=["mlp", "resnet"],
)
def test_a_second_pass_computes_and_uploads_nothing(server, source):
    net = server.create(seed=0, feature_cache="4MiB", **source)
    net.requires_grad_(False).eval()
    assert net.mode == "frozen"
    shape = (32, 1, 28, 28) if "benchmark" in source else (32, 3, 32, 32)
    batches = [torch.rand(shape, generator=seeded(i)) for i in range(4)]
    upload = sum(x.nbytes for x in batches)
    first, second = [], []

    used = travels(net, lambda: first.extend(net.features(x) for x in batches))
    assert used.round_trips == 4 and used.sent_bytes > upload
    computed = net.instance.info().forwards

    used = travels(net, lambda: second.extend(net.features(x) for x in batches))
    assert used.round_trips == 4 and used.sent_bytes < 4 * 200
    features = sum(x.nbytes for x in first)
    assert features < used.received_bytes < features + 4 * 200
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    info = net.instance.info()
    assert info.forwards == computed == 4
    assert info.feature_cache[:5] == (features + 4 * 512, 4, 4, 4, 0)
    assert info.feature_cache.hit_ratio == 0.5


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_a_second_process_is_answered_too(server, cached):
    batches = [images(i) for i in range(3)]
    first = [cached.features(x) for x in batches]
    other = backboned.Instance(
        Channel(server.target), described(server, cached.address)
    )
    before = other.channel.meter.read()
    second = [other.features(x) for x in batches]
    assert (other.channel.meter.read() - before).sent_bytes < 3 * 200
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    other.features(images(9))
    info = other.info()
    assert (info.forwards, info.feature_cache.unknown_digests) == (4, 1)
    other.channel.close()


def described(server, address):
    from backboned.transport.channel import CONTROL
    from backboned.v1 import instance_service_pb2 as control

    request = control.GetInstanceRequest(instance=address).SerializeToString()
    raw = server.channel.unary(CONTROL + "GetInstance", request)
    return control.GetInstanceResponse.FromString(raw).instance


def test_what_changed_is_computed_again(cached):
    x = images(0)
    first = cached.forward(x)
    assert cached.forward(x).cached
    cached.set_params(cached.get_params() * 2)
    again = cached.forward(x)
    assert not again.cached and again.version.params == 2
    assert not np.array_equal(first.out, again.out)
    assert cached.forward(x).cached
    assert cached.info().feature_cache.entries == 1


def test_somebody_elses_write_is_seen(server, cached):
    x = images(0)
    cached.forward(x)
    twin = server.instance(cached.address, module=False)
    twin.set_params(np.zeros(twin.layout.elements, np.float32))
    assert not cached.forward(x).cached
    assert not cached.forward(x).out.any()
    assert cached.info().feature_cache.unknown_digests == 1


def test_a_cache_too_small_for_a_pass_costs_few_questions(server):
    two_answers = 2 * (512 + 16 * 10 * 4)
    net = server.create("seq-mnist", seed=0, module=False, feature_cache=two_answers)
    batches = [images(i) for i in range(4)]
    first = [net.forward(x).out for x in batches]
    for _ in range(4):
        again = [net.forward(x).out for x in batches]
        assert all(np.array_equal(a, b) for a, b in zip(first, again))
    cache = net.info().feature_cache
    assert (cache.entries, cache.bytes) == (2, two_answers)
    assert (cache.hits, cache.misses, cache.evictions) == (0, 20, 18)
    assert cache.unknown_digests <= 4


def test_asking_may_be_chosen(cached):
    x = images(0)
    assert not cached.forward(x, cached=True).cached
    assert cached.info().feature_cache.unknown_digests == 1
    before = cached.channel.meter.read()
    assert cached.forward(x, cached=False).cached
    assert (cached.channel.meter.read() - before).sent_bytes > x.nbytes
    small = x[:1]
    assert small.nbytes < ASK_BYTES
    cached.forward(small)
    assert cached.forward(small, cached=True).cached


def test_training_is_not_asked_for(cached):
    x = images(0)
    for _ in range(2):
        result = cached.forward(x, tape=True)
        assert not result.cached and result.tape_id
    with pytest.raises(
        backboned.errors.InvalidArgument, match="needs a forward in evaluation"
    ):
        cached.forward(x, tape=True, cached=True)
    assert cached.info().feature_cache.entries == 0


def test_the_setting_may_change(server):
    net = server.create("seq-mnist", seed=0, module=False)
    x = images(0)
    assert net.forward(x).cached is False and net.forward(x).cached is False
    assert net.update(feature_cache="64KiB").feature_cache_bytes == 64 << 10
    net.forward(x)
    assert net.forward(x).cached
    assert net.clone().info().feature_cache_bytes == 0
    assert net.clone(feature_cache=5000).feature_cache_bytes == 5000
    info = net.update(feature_cache=0)
    assert info.feature_cache_bytes == info.feature_cache.entries == 0
    assert not net.forward(x).cached


def test_wrong_sizes(server, cached):
    with pytest.raises(
        backboned.errors.InvalidArgument, match="feature_cache is '1 MB'"
    ):
        server.create("seq-mnist", feature_cache="1 MB")
    with pytest.raises(
        backboned.errors.InvalidArgument,
        match=r"is 100, must be 0 \(off\) or at least 552",
    ):
        cached.update(feature_cache=100)
    with pytest.raises(
        backboned.errors.InvalidArgument, match="feature_cache_bytes is -1"
    ):
        cached.update(feature_cache=-1)
    assert cached.info().feature_cache_bytes == 1 << 20


def test_the_server_has_so_many_bytes(start):
    server = start(options=["--max-cache-bytes=1MiB"])
    assert server.info().limits["max_cache_bytes"] == 1 << 20
    first = server.create("seq-mnist", module=False, feature_cache="700KiB")
    with pytest.raises(backboned.errors.ResourceExhausted) as refused:
        server.create("seq-mnist", module=False, feature_cache="700KiB")
    assert refused.value.limit == "max-cache-bytes"
    assert refused.value.limit_value == 1 << 20
    assert refused.value.requested_value == 1400 << 10
    first.delete()
    server.create("seq-mnist", module=False, feature_cache="700KiB")


def test_the_digest_is_as_the_documentation_says():
    x = np.array([[1, -2]], np.float32)
    text = (ROOT / "docs" / "wire.md").read_text()
    section = text.split("## Digest of an input")[1].split("\n## ")[0]
    assert re.findall("`([0-9a-f]{64})`", section) == [input_digest(x).hex()]
    numbers = np.array([1, 0, 1, 2, 1, 2], "<i8").tobytes()
    assert input_digest(x) == hashlib.sha256(numbers + x.tobytes()).digest()


def test_only_what_was_kept_is_worth_asking_for():
    asking = KnownAnswers(True)
    assert not asking.is_worth(V1, b"a")
    asking.answered(V1, b"a", KEPT)
    asking.answered(V1, b"b", pb.CACHE_USE_TOO_LARGE)
    assert asking.is_worth(V1, b"a")
    assert not asking.is_worth(V1, b"b")
    assert not asking.is_worth(V2, b"a")
    asking.answered(V2, b"b", KEPT)
    assert not asking.is_worth(V2, b"a") and asking.is_worth(V2, b"b")


def test_others_answers_are_worth_asking_for():
    asking = KnownAnswers(True)
    asking.answered(V1, b"a", HIT)
    assert asking.is_worth(V1, b"new")
    asking.missed(b"new")
    assert not [key for key in b"xyz" if asking.is_worth(V1, bytes([key]))]


def test_questions_in_vain_become_rarer():
    asking = KnownAnswers(True)
    sent_at_once = []
    for _ in range(7):
        asking.answered(V1, b"a", KEPT)
        count = 0
        while not asking.is_worth(V1, b"a"):
            count += 1
        sent_at_once.append(count)
        asking.missed(b"a")
    assert sent_at_once == [0, 1, 3, 7, 15, 31, 63]
    asking.answered(V1, b"a", KEPT)
    asking.answered(V1, b"a", HIT)
    assert asking.is_worth(V1, b"a")


def test_what_is_remembered_is_bounded():
    asking = KnownAnswers(True)
    for number in range(70_000):
        asking.answered(V1, number.to_bytes(4, "little"), KEPT)
    assert not asking.is_worth(V1, (0).to_bytes(4, "little"))
    assert asking.is_worth(V1, (69_999).to_bytes(4, "little"))
