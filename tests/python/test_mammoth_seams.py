"""Say whether a checkout of Mammoth has what the drop-in takes hold of."""

import types

import pytest
import torch
from backboned_mammoth import RanHere, SeamError
from backboned_mammoth.network import OnServer
from backboned_mammoth.registry import replace_factories
from backboned_mammoth.routing import route_optimizers
from backboned_mammoth.run import MODE, REQUIRE_REMOTE
from mammoth_pairs import digits

pytest_plugins = ["mammoth_pairs"]


def package(**contents):
    module = types.ModuleType("backbone")
    vars(module).update(contents)
    return module


@pytest.mark.parametrize(
    "table",
    [{}, {"REGISTERED_BACKBONES": {"mnistmlp": 1}}, {"REGISTERED_BACKBONES": None}],
)
def test_a_mammoth_without_its_table_of_factories_is_refused(run, table):
    with pytest.raises(SeamError, match="no table REGISTERED_BACKBONES"):
        replace_factories(package(MammothBackbone=torch.nn.Module, **table), run)


def test_another_package_of_that_name_is_left_alone(run):
    other = package(REGISTERED=1)
    replace_factories(other, run)
    assert {n for n in vars(other) if not n.startswith("_")} == {"REGISTERED"}


def test_an_entry_without_a_factory_stays_as_it_is(backbone, run):
    backbone.REGISTERED_BACKBONES["broken"] = ImportError("no timm")
    replace_factories(backbone, run)
    assert isinstance(backbone.REGISTERED_BACKBONES["broken"], ImportError)
    assert isinstance(backbone.build("mnistmlp", num_classes=10), OnServer)


def test_a_factory_that_takes_no_number_of_classes(backbone, run):
    entry = backbone.REGISTERED_BACKBONES["mnistmlp"]
    plain = entry["class"]
    entry["class"] = lambda mlp_hidden_size=100: plain(7, mlp_hidden_size)
    replace_factories(backbone, run)
    net = backbone.build("mnistmlp")
    assert isinstance(net, OnServer) and net(digits()).shape == (6, 7)
    assert run.counts["forwards"] == 1


def without_head(net):
    net.last = net.classifier
    del net.classifier


def other_words(net):
    type(net).forward = lambda self, x, what="out": self.net(x)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_head, "BaseMNISTMLP has no module classifier"),
        (other_words, "BaseMNISTMLP.forward has no parameter returnt"),
    ],
)
def test_a_class_that_is_otherwise_runs_here(backbone, run, change, why, monkeypatch):
    entry = backbone.REGISTERED_BACKBONES["mnistmlp"]
    plain = entry["class"]

    def build(num_classes=10):
        net = plain(num_classes=num_classes)
        change(net)
        return net

    entry["class"] = build
    replace_factories(backbone, run)
    with pytest.warns(RuntimeWarning, match=why):
        net = backbone.build("mnistmlp")
    assert not isinstance(net, OnServer)
    assert net.net(digits().flatten(1)).shape == (6, 10)
    monkeypatch.setenv(REQUIRE_REMOTE, "1")
    with pytest.raises(RanHere, match=why):
        backbone.build("mnistmlp")


class Renamed:
    def get_optim(self, params=None):
        """Mammoth's, under another name."""


class Closed:
    def get_optimizer(self):
        """Takes no parameters."""


@pytest.mark.parametrize(
    ("cls", "why"),
    [(Renamed, "no ContinualModel.get_optimizer"), (Closed, "takes no params")],
)
def test_methods_with_other_optimizers_work_mirrored(run, cls, why, monkeypatch):
    module = package(ContinualModel=cls)
    before = dict(vars(cls))
    with pytest.warns(RuntimeWarning, match=f"every network is mirrored: .*{why}"):
        route_optimizers(module, run)
    assert dict(vars(cls)) == before
    monkeypatch.setenv(MODE, "hosted")
    with pytest.raises(SeamError, match=f"no network can be hosted: .*{why}"):
        route_optimizers(module, run)
