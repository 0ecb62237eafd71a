"""The drop-in for Mammoth, when its server is restarted in the middle of a training."""

import pytest
from mammoth_pairs import Cosine, assert_same_state, photos, train
from test_faults import Phoenix

pytest_plugins = ["mammoth_pairs"]


@pytest.fixture
def server(binary, tmp_path):
    """The server that the drop-in computes on, in place of the tests' common one."""
    phoenix = Phoenix(binary, tmp_path / "server.sock")
    yield phoenix
    phoenix.kill()


@pytest.mark.parametrize("head", ["its-own", "replaced"])
def test_training_goes_on_with_the_same_bits(server, resnets, run, head):
    for net in resnets:
        if head == "replaced":
            net.classifier = Cosine(net.classifier.in_features)
        train(net, photos())
    server.restart()
    for net in resnets:
        train(net, photos(seed=2))
    assert_same_state(*resnets)
    assert run.counts["forwards"] == 2
