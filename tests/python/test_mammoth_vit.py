"""Mammoth's vision transformer through the drop-in: against itself, bit for bit.

A small one of Mammoth's own class for most of it, and ViT-B/16 once. These tests skip
where `mammoth_checkout` finds no Mammoth.
"""

import sys
import warnings

import pytest
import torch
from backboned_mammoth import RanHere, registry
from backboned_mammoth.families import KNOWN
from backboned_mammoth.run import REQUIRE_REMOTE, SERVER, Run
from mammoth_pairs import assert_same, assert_same_grads, assert_same_state, train

pytest_plugins = ["mammoth_pairs", "mammoth_checkout"]

SIZES = {
    "img_size": 32,
    "patch_size": 16,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
}


@pytest.fixture(scope="module")
def real_backbone(checkout):
    """Mammoth's package `backbone`, with a further entry `small`."""
    packages = ("backbone", "utils")
    hidden = {n: m for n, m in sys.modules.items() if n.split(".")[0] in packages}
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    try:
        import backbone

        yield backbone
    finally:
        sys.path.remove(str(checkout))
        for name in [n for n in sys.modules if n.split(".")[0] in packages]:
            del sys.modules[name]
        sys.modules.update(hidden)


@pytest.fixture
def vit_run(server, monkeypatch):
    monkeypatch.setenv(SERVER, server.target)
    run = Run()
    yield run
    run.close()


def make_pair(run, factory, **options):
    """Build two equal networks: one put on the server, and one of Mammoth alone."""
    remote = registry._remote("vit", factory, run)
    pair = []
    for make in (remote, factory):
        torch.manual_seed(0)
        pair.append(make(num_classes=10, **options))
    return pair


@pytest.fixture
def small(real_backbone, vit_run, monkeypatch):
    """Builds a pair of small ones; with `use_lora`, blocks take low-rank additions."""
    from backbone.vit import VisionTransformer

    known = KNOWN["vit"]._replace(arguments=("num_classes", *SIZES))
    monkeypatch.setattr(registry, "KNOWN", {"vit": known})

    def build(use_lora=False):
        def factory(num_classes, img_size, patch_size, embed_dim, depth, num_heads):
            return VisionTransformer(
                img_size=img_size,
                patch_size=patch_size,
                embed_dim=embed_dim,
                depth=depth,
                num_heads=num_heads,
                num_classes=num_classes,
                use_lora=use_lora,
            )

        return make_pair(vit_run, factory, **SIZES)

    return build


@pytest.fixture
def vits(small):
    return small()


@pytest.fixture
def lora_vits(small):
    return small(use_lora=True)


def images(seed=1, size=32, count=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator)


def additions(seed=5):
    """Additions to the layers of the first block, and their tensors."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).requires_grad_()

    a, b, whole = draw(2, 48), draw(144, 2), draw(48, 48)
    block = {"qkv": {"A": a, "B": b}, "proj": whole, "fc1": None, "fc2": None}
    return {0: block}, [a, b, whole]


@pytest.mark.parametrize("returnt", ["out", "features", "both", "full"])
def test_gives_what_its_class_gives(vits, vit_run, returnt):
    for training in (False, True):
        net, local = (net.train(training) for net in vits)
        assert_same(net(images(), returnt=returnt), local(images(), returnt=returnt))
        assert_same(net(images(), {}, returnt), local(images(), {}, returnt))
    assert type(net).__name__ == "RemoteVisionTransformer"
    assert vit_run.counts["forwards"] == 4 and not vit_run.counts["forwards here"]


def test_trains_to_the_bits_of_a_local_network(vits, vit_run):
    for step in range(3):
        for net in vits:
            train(net, images(seed=step), step)
    assert_same_grads(*vits)
    assert_same_state(*vits)
    assert vit_run.counts["forwards"] == 3 and not vit_run.counts["forwards here"]


def test_parameters_without_the_head(vits):
    for net in vits:
        net(images()).sum().backward()
    for name in ("get_params", "get_grads"):
        ours, theirs = (getattr(net, name)(discard_classifier=True) for net in vits)
        assert torch.equal(ours, theirs)
        assert len(ours) < sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("returnt", ["out", "full"])
def test_low_rank_additions_run_here_with_one_warning(lora_vits, vit_run, returnt):
    net, local = lora_vits
    pair = [additions(), additions()]
    with pytest.warns(
        RuntimeWarning, match=r"vit runs here.*low-rank additions \(AB\)"
    ):
        ours = net(images(), AB=pair[0][0], returnt=returnt)
    theirs = local(images(), AB=pair[1][0], returnt=returnt)
    assert_same(ours, theirs)
    assert not torch.equal(theirs[0], local(images(), returnt=returnt)[0])
    for answer in (ours, theirs):
        (answer if returnt == "out" else answer[0]).sum().backward()
    for mine, other in zip(pair[0][1], pair[1][1]):
        assert torch.equal(mine.grad, other.grad)
    assert_same_grads(net, local)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(images(), pair[0][0])
    assert vit_run.counts["forwards here"] == 2 and not vit_run.counts["forwards"]


def test_calls_with_and_without_additions(lora_vits):
    """The server has what the steps here made of the parameters."""
    for net in lora_vits:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for step in range(4):
                optimizer.zero_grad()
                added = additions()[0] if step % 2 else {}
                net(images(seed=step), AB=added).square().sum().backward()
                optimizer.step()
    assert_same_state(*lora_vits)
    assert_same(*(net(images()) for net in lora_vits))


def test_additions_are_an_error_if_all_must_be_remote(lora_vits, monkeypatch):
    monkeypatch.setenv(REQUIRE_REMOTE, "1")
    with pytest.raises(RanHere, match=r"low-rank additions \(AB\)"):
        lora_vits[0](images(), AB=additions()[0])
    assert_same(*(net(images()) for net in lora_vits))


def test_the_registered_one(real_backbone, vit_run):
    factory = real_backbone.REGISTERED_BACKBONES["vit"]["class"]
    pair = make_pair(vit_run, factory, pretrained=False)
    x = images(size=224, count=1)
    with torch.no_grad():
        assert_same(*(net.eval()(x, returnt="both") for net in pair))
    for net in pair:
        train(net.train(), x)
    assert_same_state(*pair)
    assert vit_run.counts["forwards"] == 2 and not vit_run.counts["forwards here"]
