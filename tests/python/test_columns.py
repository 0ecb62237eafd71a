"""Columns of progressive networks: what they share, and what is refused."""

import copy

import backboned
import numpy as np
import pytest
import torch

SMALL = {"architecture": "resnet18-pnn", "num_classes": 3, "num_filters": 4}
LATER = {**SMALL, "img_size": 16}
X = np.random.default_rng(0).random((4, 3, 16, 16), np.float32)


def create(server, seed=0, **options):
    return server.create(seed=seed, module=False, **{**LATER, **options})


def test_a_column_says_what_is_before_it(server):
    first = create(server, name="first")
    second = create(server, columns=["first"], seed=1)
    third = create(server, columns=[first, second], seed=2)
    assert first.columns == ()
    assert second.columns == second.info().columns == ("local/first",)
    assert third.columns == ("local/first", second.address)
    assert third.layout.attributes["feature_dim"] == 3 * 32
    assert third.forward(X, ["features"]).features.shape == (4, 96)
    first.delete()


def test_an_equal_name_behind_other_columns_is_no_equal_instance(server):
    first = create(server)
    named = {"name": "behind", "columns": [first]}
    assert create(server, **named).uid == create(server, **named, exist_ok=True).uid
    with pytest.raises(
        backboned.errors.AlreadyExists,
        match='"behind" exists already, but has other ear',
    ):
        create(server, name="behind", columns=[create(server)], exist_ok=True)
    server.delete("behind")


def test_later_writes_to_an_earlier_column_do_not_reach_it(server):
    first = create(server)
    second = create(server, columns=[first], seed=1)
    before = second.forward(X).out
    digest = second.info(digest=True).digest
    first.set_params(np.zeros(first.layout.elements, np.float32))
    first.forward(X, training=True)
    assert np.array_equal(second.forward(X).out, before)
    first.delete()
    assert np.array_equal(second.forward(X).out, before)
    assert second.info(digest=True).digest == digest


def test_training_it_leaves_the_earlier_column_alone(server):
    first = create(server)
    second = create(server, columns=[first], seed=1)
    digest = first.info(digest=True).digest
    moved = second.forward(X, training=True, return_buffers=True).buffers
    name = "old_layer1s.0.0.bn1.running_mean"
    assert not np.array_equal(moved[name], np.zeros(4))
    assert first.info(digest=True).digest == digest


def test_the_digest_tells_columns_behind_other_ones_apart(server):
    digests = {
        create(server, columns=[create(server, seed)], seed=5).info(digest=True).digest
        for seed in (1, 2)
    }
    assert len(digests) == 2


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_columns_of_other_element_types(server, dtype):
    narrow = create(server, dtype=dtype)
    second = create(server, dtype=dtype, columns=[narrow])
    assert np.isfinite(second.forward(X).out).all()
    with pytest.raises(
        backboned.errors.InvalidArgument, match=f"has dtype {dtype}, expected float32"
    ):
        create(server, columns=[narrow])


def test_columns_that_do_not_fit_are_refused(server):
    first = create(server, name="narrow")
    mlp = {"architecture": "mnistmlp-pnn", "num_classes": 3, "module": False}
    for message, options in [
        (
            '"local/narrow" is a resnet18-pnn, expected mnistmlp-pnn',
            {**mlp, "input_size": 8, "columns": [first]},
        ),
        (
            '"local/narrow" has num_filters 4, expected 8',
            {**LATER, "num_filters": 8, "columns": [first]},
        ),
        (
            "has input_size 9, expected 8",
            {
                **mlp,
                "input_size": 8,
                "columns": [server.create(**mlp, input_size=9)],
            },
        ),
        (
            "resnet18 is not a progressive network",
            {"architecture": "resnet18", "num_classes": 3, "columns": [first]},
        ),
        ("argument img_size is 0", {**SMALL, "columns": [first]}),
        (
            "there are 64 earlier columns, at most 63",
            {**LATER, "columns": [first] * 64},
        ),
    ]:
        with pytest.raises(backboned.errors.InvalidArgument, match=message):
            server.create(**options)
    with pytest.raises(backboned.errors.NotFound, match="nobody"):
        create(server, columns=["nobody"])
    first.delete()


def test_images_of_another_size_are_refused(server):
    second = create(server, columns=[create(server)])
    with pytest.raises(
        backboned.errors.InvalidArgument, match="expected .* H = W = 16"
    ):
        second.forward(np.zeros((2, 3, 32, 32), np.float32))


def test_it_trains_as_a_module(server):
    first = server.create(seed=0, **LATER)
    second = server.create(seed=1, columns=[first], **LATER)
    assert not any(name.startswith("old_") for name, _ in second.named_parameters())
    x = torch.from_numpy(X).requires_grad_()
    second(x).square().mean().backward()
    assert all(p.grad is not None for p in second.parameters())
    assert x.grad.abs().sum() > 0
    with pytest.raises(TypeError, match="later column of a progressive network"):
        copy.deepcopy(second)


def test_a_lateral_block_has_all_its_tensors_under_both_names(server):
    first = server.create(seed=0, **LATER)
    second = server.create(seed=1, columns=[first], **LATER)
    state = second.state_dict()
    twins = {}
    for stage in (1, 2, 3):
        name, twin = f"lateral_layer{stage + 1}.", f"adaptor{stage}.3."
        for key in state:
            if key.startswith(name):
                twins[twin + key[len(name) :]] = state[key]
    assert "adaptor3.3.0.bn1.running_mean" in twins
    found = {key for key in state if key.startswith("adaptor") and ".3." in key}
    assert found == twins.keys()
    assert all(state[key] is tensor for key, tensor in twins.items())


def test_a_later_column_is_not_copied(server):
    options = {"architecture": "mnistmlp-pnn", "num_classes": 3, "input_size": 8}
    first = server.create(seed=0, **options)
    assert torch.equal(copy.deepcopy(first).get_params(), first.get_params())
    second = server.create(seed=1, columns=[first], **options)
    with pytest.raises(TypeError, match="cannot be copied: the earlier columns may"):
        copy.deepcopy(second)


def test_a_perceptrons_adaptors_get_no_gradient(server):
    options = {"architecture": "mnistmlp-pnn", "num_classes": 3, "input_size": 8}
    first = server.create(seed=0, **options)
    second = server.create(seed=1, columns=[first], **options)
    second(torch.rand(4, 8)).sum().backward()
    without = {name for name, p in second.named_parameters() if p.grad is None}
    assert without == {
        "base_1.0.weight",
        "base_1.0.bias",
        "base_1.2.weight",
        "base_2.0.weight",
        "base_2.0.bias",
        "base_2.2.weight",
        "adaptor1.0.alpha",
        "adaptor2.0.alpha",
    }
