"""The drop-in for Mammoth, with a package that is built as Mammoth's is.

Its programs are in test_mammoth_programs.py, real methods in test_mammoth_methods.py.
"""

import copy
import inspect
import io
import pickle
import sys
import warnings

import pytest
import torch
from backboned.errors import InvalidArgument
from backboned_mammoth import RanHere
from backboned_mammoth.network import OnServer
from backboned_mammoth.run import REQUIRE_REMOTE
from mammoth_pairs import (
    Cosine,
    assert_same,
    assert_same_grads,
    assert_same_state,
    digits,
    photos,
    train,
)
from torch import nn

pytest_plugins = ["mammoth_pairs"]


# These stay as they are.


def test_keeps_the_class_its_name_and_the_modules(backbone, resnets):
    net, local = resnets
    cls = sys.modules["backbone.ResNetBlock"].ResNet
    assert isinstance(net, cls) and type(net).__name__ == "RemoteResNet"
    assert "resnet" in str(type(net)).lower()
    assert [n for n, _ in net.named_modules()] == [n for n, _ in local.named_modules()]
    assert type(net.layer4[-1]) is type(local.layer4[-1])
    assert_same_state(net, local)


def test_leaves_the_generator_as_a_local_network_does(build):
    net, _ = build("mnistmlp")
    expected = torch.rand(3)
    torch.manual_seed(0)
    make = sys.modules["backbone"].REGISTERED_BACKBONES["mnistmlp"]["class"]
    with torch.no_grad():
        make(num_classes=10)(digits())
    assert torch.equal(torch.rand(3), expected)


def test_reads_the_input_whatever_it_is_called(mlps, monkeypatch):
    net, local = mlps
    efficientnets = inspect.signature(lambda self, inputs, returnt="out": None)
    monkeypatch.setattr(type(net), "_signature", efficientnets)
    assert_same(net(digits(), returnt="features"), local(digits(), returnt="features"))


@pytest.mark.parametrize("returnt", ["out", "features", "full"])
def test_perceptron_gives_what_its_class_gives(mlps, returnt):
    net, local = mlps
    assert_same(net(digits(), returnt=returnt), local(digits(), returnt=returnt))
    assert_same(net(digits(), returnt), local(digits(), returnt))


@pytest.mark.parametrize("returnt", ["out", "features", "both", "full"])
def test_resnet_gives_what_its_class_gives(resnets, returnt):
    net, local = resnets
    assert_same(net(photos(), returnt), local(photos(), returnt))
    assert_same_state(net, local)


def test_refuses_a_returnt_as_its_class_does(mlps, resnets):
    with pytest.raises(NotImplementedError, match="a perceptron gives no such thing"):
        mlps[0](digits(), "both")
    with pytest.raises(NotImplementedError, match="a residual network gives no all"):
        resnets[0](photos(), "all")


def test_refuses_wrong_arguments_as_its_class_does(mlps):
    with pytest.raises(TypeError, match="nothing"):
        mlps[0](digits(), nothing=1)


def test_stages_before_their_relu(resnets):
    for net in resnets:
        net.set_return_prerelu(True)
    assert_same(resnets[0](photos(), "full"), resnets[1](photos(), "full"))


def test_trains_to_the_bits_of_a_local_network(resnets, run):
    for step in range(3):
        for net in resnets:
            train(net, photos(seed=step), step)
    assert_same_state(*resnets)
    assert run.counts["forwards"] == 3 and not run.counts["forwards here"]


def test_outstanding_forwards_chain_the_buffers(resnets):
    for net in resnets:
        outs = [net(photos(seed=seed)) for seed in range(3)]
        with torch.no_grad():
            net(photos(seed=9))
        (outs[2].sum() + outs[0].pow(2).sum()).backward()
    assert_same_state(*resnets)
    assert_same_grads(*resnets)


def test_gradient_of_the_input(mlps):
    grads = []
    for net in mlps:
        x = digits().requires_grad_()
        net.eval()(x).pow(2).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_features_leave_the_head_without_gradient(mlps):
    for net in mlps:
        net(digits(), "features").sum().backward()
    assert mlps[0].classifier.weight.grad is None
    assert_same_grads(*mlps)


def test_outputs_can_be_written(mlps):
    with torch.no_grad():
        out = mlps[0](digits())
        out[:, 5:] = -1.0
    assert (out[:, 5:] == -1).all()


# BatchNorm layers.


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: setattr(layer, "track_running_stats", False),
        lambda layer: setattr(layer, "eps", 1e-2),
        lambda layer: setattr(layer, "momentum", 0.5),
        lambda layer: setattr(layer, "momentum", None),
        lambda layer: layer.eval(),
    ],
    ids=["track_running_stats", "eps", "momentum", "cumulative", "eval"],
)
@pytest.mark.parametrize("where", ["", "layer2"])
def test_batch_norm_settings_travel(resnets, run, change, where):
    for net in resnets:
        for module in net.get_submodule(where).modules():
            if isinstance(module, nn.BatchNorm2d):
                change(module)
        for seed in range(2):
            net(photos(seed=seed)).sum().backward()
    assert_same_state(*resnets)
    assert_same_grads(*resnets)
    assert not run.counts["forwards here"]


def test_batch_norm_in_training_inside_an_evaluated_network(resnets):
    for net in resnets:
        net.eval()
        net.layer3.train()
        net(photos())
    assert_same_state(*resnets)


# Heads.


@pytest.mark.parametrize("returnt", ["out", "features", "both", "full"])
def test_replaced_head_runs_here_over_remote_features(resnets, run, returnt):
    for net in resnets:
        net.classifier = Cosine(32)
    assert_same(resnets[0](photos(), returnt), resnets[1](photos(), returnt))
    assert run.counts["forwards"] == 1 and not run.counts["forwards here"]


def test_replaced_head_trains(resnets):
    for net in resnets:
        net.classifier = Cosine(32)
        for step in range(3):
            train(net, photos(seed=step), step)
    assert_same_state(*resnets)


def test_head_of_another_size_runs_here(mlps):
    for net in mlps:
        torch.manual_seed(1)
        net.classifier = nn.Linear(100, 3)
        net(digits()).sum().backward()
    assert_same(mlps[0](digits()), mlps[1](digits()))
    assert_same_grads(*mlps)


def test_new_head_of_the_same_size_runs_in_the_server(resnets):
    for net in resnets:
        torch.manual_seed(1)
        net.classifier = nn.Linear(32, 10)
        net.classifier.register_forward_hook(lambda *_: None)
        net.classifier._forward_hooks.clear()
    net = resnets[0]
    calls = []
    plain, nn.Linear.forward = nn.Linear.forward, lambda *a: calls.append(1)
    try:
        out = net(photos())
    finally:
        nn.Linear.forward = plain
    assert not calls
    assert_same(out, resnets[1](photos()))


def test_head_goes_and_comes_back(mlps):
    for net in mlps:
        old = net.classifier
        net.classifier = nn.Identity()
        train(net, digits())
        net.classifier = old
        train(net, digits())
    assert_same_state(*mlps)


def test_head_called_by_itself(mlps):
    for net in mlps:
        features = net(digits(), "features")
        net.classifier(features).sum().backward()
    assert_same_grads(*mlps)


def test_further_modules_on_the_network(resnets):
    for net in resnets:
        torch.manual_seed(2)
        net.projector = nn.Linear(32, 3)
        net.projector(net(photos(), "features")).sum().backward()
    assert_same_grads(*resnets)
    assert_same_state(*resnets)


# These run here.


def test_hook_on_an_inner_module_runs_here_and_warns_once(resnets, run):
    net, local = resnets
    seen = []
    net.layer2[0].conv1.register_forward_hook(lambda *_: seen.append(1))
    with pytest.warns(RuntimeWarning, match=r"runs here.*layer2\.0\.conv1 has hooks"):
        assert_same(net(photos()), local(photos()))
    net(photos())
    assert len(seen) == 2 and run.counts["forwards here"] == 2
    assert run.counts["forwards"] == 0


def test_hook_on_the_whole_network_does_not_matter(mlps, run):
    seen = []
    mlps[0].register_forward_hook(lambda *_: seen.append(1))
    mlps[0](digits())
    assert seen and run.counts["forwards"] == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda n: setattr(n.layer1[0], "conv1", nn.Identity()), "is another module"),
        (
            lambda n: setattr(n.layer1[0].conv1, "padding", (0, 0)),
            "padding was changed",
        ),
        (
            lambda n: setattr(n.layer1[0].conv1, "bias", nn.Parameter(torch.ones(4))),
            "has other parts",
        ),
        (lambda n: n.layer3.append(nn.ReLU()), "layer3 has other parts"),
        (lambda n: setattr(n.layer1[1], "forward", lambda x: x), "forward of its own"),
    ],
)
def test_changed_inner_module_runs_here(resnets, change, why):
    for net in resnets:
        change(net)
    try:
        expected = resnets[1](photos())
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=str(error)[:20].replace("(", r"\(")):
            resnets[0](photos())
        return
    with pytest.warns(RuntimeWarning, match=why):
        assert_same(resnets[0](photos()), expected)


def test_aliased_module_that_went_its_own_way_runs_here(mlps):
    for net in mlps:
        torch.manual_seed(1)
        net.fc1 = nn.Linear(784, 100)
    with pytest.warns(RuntimeWarning, match="_features.0 is another module"):
        assert_same(mlps[0](digits()), mlps[1](digits()))


def test_after_a_forward_here_the_server_has_the_buffers(resnets):
    for net in resnets:
        handle = net.layer1.register_forward_hook(lambda *_: None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            net(photos(seed=1))
        handle.remove()
        net(photos(seed=2))
    assert_same_state(*resnets)


def test_network_of_doubles_runs_here(mlps):
    for net in mlps:
        net.double()
    with pytest.warns(RuntimeWarning, match="float64"):
        assert_same(mlps[0](digits().double()), mlps[1](digits().double()))


def test_wrong_input_is_refused_as_its_class_does(resnets):
    x = torch.rand(2, 5, 16, 16)
    messages = []
    for net in resnets:
        with pytest.raises(RuntimeError) as caught:
            net(x)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_empty_batch(mlps):
    assert mlps[0](torch.empty(0, 1, 28, 28)).shape == (0, 10)


def test_unknown_backbone_runs_here(build, run):
    with pytest.warns(RuntimeWarning, match="strange runs here.*does not know"):
        net, local = build("strange")
    assert not isinstance(net, OnServer)
    assert_same(net(digits()), local(digits()))


def test_other_network_under_a_known_name_runs_here(build):
    net, local = build("reduced-resnet18")
    with pytest.warns(RuntimeWarning, match=r"conv1.weight \[5, 3, 3, 3\] where"):
        assert_same(net(photos()), local(photos()))


def test_required_remote_is_an_error(resnets, build, monkeypatch):
    monkeypatch.setenv(REQUIRE_REMOTE, "1")
    resnets[0].layer2.register_forward_hook(lambda *_: None)
    with pytest.raises(RanHere, match="resnet18 cannot run in the server: layer2 has"):
        resnets[0](photos())
    with pytest.raises(RanHere, match="strange cannot run in the server"):
        build("strange")


def test_switch_that_is_neither_yes_nor_no(resnets, monkeypatch):
    monkeypatch.setenv(REQUIRE_REMOTE, "perhaps")
    resnets[0].layer2.register_forward_hook(lambda *_: None)
    with pytest.raises(InvalidArgument, match="REQUIRE_REMOTE is 'perhaps'"):
        resnets[0](photos())


# Copies, checkpoints, processes.


def test_copy_in_the_middle_of_training_is_independent(resnets, run):
    copies = []
    for net in resnets:
        train(net, photos(seed=1))
        out = net(photos(seed=2))
        twin = copy.deepcopy(net)
        train(twin.eval(), photos(seed=4))
        out.sum().backward()
        train(net, photos(seed=3))
        copies.append(twin)
    assert_same_state(*resnets)
    assert_same_state(*copies)
    assert type(copies[0]) is type(resnets[0]) and run.counts["instances"] == 2


def test_copy_keeps_a_replaced_head(mlps):
    twins = []
    for net in mlps:
        net.classifier = Cosine(100)
        twins.append(copy.deepcopy(net))
    assert_same(twins[0](digits()), twins[1](digits()))


def test_state_dict_goes_both_ways(resnets):
    net, local = resnets
    train(local, photos())
    net.load_state_dict(local.state_dict())
    assert_same(net(photos()), local(photos()))
    assert_same_state(net, local)


def test_pickles_as_an_object_of_mammoths_class(backbone, resnets):
    net, local = resnets
    plain = pickle.loads(pickle.dumps(net))
    assert type(plain) is type(local) and "_counterpart" not in plain.__dict__
    assert_same(plain.eval()(photos()), local.eval()(photos()))
    file = io.BytesIO()
    torch.save({"net": net.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert list(loaded["net"]) == list(local.state_dict())


def test_server_that_lost_the_network_gets_it_again(resnets, run, caplog):
    for step in range(2):
        for net in resnets:
            train(net, photos(seed=step), step)
        if step == 0:
            for instance in run.server.instances():
                if instance.architecture == "resnet18" and instance.ephemeral:
                    run.server.delete(instance.name)
            for net in resnets:
                train(net, photos(), 9)
            assert "had forgotten the network" in caplog.text
    assert_same_state(*resnets)


def test_says_what_it_moved(mlps, run):
    train(mlps[0], digits())
    line = run.summary()
    assert line.startswith("backboned: 1 forwards in unix:")
    assert "mirrored" in line and "MB sent" in line and "round trips" in line


@pytest.mark.cpu
def test_says_that_threads_differ(server, monkeypatch, run):
    torch.set_num_threads(1)
    try:
        with pytest.warns(RuntimeWarning, match="threads 2 there, 1 here"):
            run.server.info()
    finally:
        torch.set_num_threads(2)
