"""`net.traffic` counts the bytes of messages and the calls, for each network."""

import backboned
import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, optim
from backboned.transport.channel import Channel
from backboned.transport.traffic import Meter
from backboned.types import Traffic

pytestmark = pytest.mark.transports


def test_differences_and_words():
    used = Traffic(3_000_000, 2_000, 5) - Traffic(1_000_000, 1_000, 2)
    assert used == Traffic(2_000_000, 1_000, 3)
    assert str(used) == "2.000 MB sent, 0.001 MB received, 3 round trips"


def test_views_of_a_channel_count_for_themselves(server):
    meters = [Meter(), Meter()]
    views = [server.channel.metered(meter) for meter in meters]
    path = backboned.transport.channel.CONTROL + "GetServer"
    answers = [views[i].unary(path, b"") for i in (0, 1, 1)]
    assert meters[0].read() == Traffic(0, len(answers[0]), 1)
    assert meters[1].read() == Traffic(0, len(answers[1]) + len(answers[2]), 2)


def test_views_share_the_connection(server):
    channel = Channel(server.target)
    view = channel.metered(Meter())
    assert view.connection is channel.connection
    channel.close()
    assert view.closed
    with pytest.raises(backboned.errors.Unavailable, match="is closed"):
        view.unary(backboned.transport.channel.CONTROL + "GetServer", b"")


def test_networks_count_for_themselves(server, net):
    other = server.create("seq-mnist", seed=1)
    before = net.traffic, other.traffic
    net(torch.zeros(2, 1, 28, 28))
    assert (net.traffic - before[0]).round_trips == 1
    assert other.traffic == before[1]


def test_a_forward_behind_a_backward_names_no_tape(server):
    with backboned.connect(server.target) as mine:  # Others' tapes are not named here.
        net, sent = mine.create("seq-mnist", seed=0), []
        x = torch.zeros(2, 1, 28, 28)
        net(x).sum().backward()
        for _ in range(2):  # The second would have no tape to name.
            before = net.traffic
            with torch.no_grad():
                net(x)
            sent.append((net.traffic - before).sent_bytes)
    assert sent[0] == sent[1]


def test_long_transfers_are_counted_message_by_message(server):
    net = server.create(architecture="resnet18", num_classes=10, seed=0)
    state_bytes = net.layout.elements * 4
    created = net.traffic
    assert state_bytes < created.received_bytes < state_bytes * 1.01
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    net.eval()(torch.zeros(1, 3, 32, 32))
    sent = (net.traffic - created).sent_bytes
    assert state_bytes < sent < state_bytes * 1.01


@pytest.mark.parametrize("whole", [False, True], ids=["step", "train_step"])
def test_a_hosted_step_of_experience_replay_moves_images_and_little_else(server, whole):
    """ResNet18 of seq-cifar10, 32 images and 32 of the buffer: below 1 MB, by far."""
    net = server.create("seq-cifar10", seed=0)
    optimizer = optim.SGD(net, lr=0.1)

    def step():
        x, labels = torch.rand(64, 3, 32, 32), torch.randint(0, 10, (64,))
        if whole:
            net.train_step(x, [CrossEntropy(labels)], optimizer)
        else:
            optimizer.zero_grad()
            F.cross_entropy(net(x), labels).backward()
            optimizer.step()
        return x.numel() * x.element_size()

    step()  # It tells the server the optimizer, too.
    before = net.traffic
    images = step()
    used = net.traffic - before
    beyond = used.sent_bytes + used.received_bytes - images
    assert used.sent_bytes > images and beyond < 8_000
    net.delete()


def test_traffic_of_several_networks_is_added_up(server):
    nets = [server.create("seq-mnist", seed=seed) for seed in range(2)]
    for net in nets:
        net.eval()(torch.rand(1, 1, 28, 28))
    one, other = (net.traffic for net in nets)
    assert sum(net.traffic for net in nets) == one + other
    assert (one + other).round_trips == one.round_trips + other.round_trips
    assert (one + other) - other == one
    with pytest.raises(TypeError):
        one + 1
