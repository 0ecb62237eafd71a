"""A server that is killed and restarted in the middle of a training."""

import copy
import logging
import random
import subprocess
import threading

import backboned
import pytest
import torch
from backboned import CrossEntropy, optim
from backboned import calls as client_calls
from backboned.transport import messages
from test_lifecycle import wait_until
from torch.nn import functional as F

pytestmark = pytest.mark.transports

STEPS = 6


class Phoenix:
    """A server at one Unix path that is killed and comes back."""

    def __init__(self, binary, path, *options):
        self.target = f"unix:{path}"
        self.command = [binary, f"--listen={self.target}", "--threads=2", *options]
        self.lock = threading.Lock()
        self.start()

    def start(self, *options):
        self.process = subprocess.Popen(
            [*self.command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert "serving" in self.process.stdout.readline()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def restart(self, *options):
        with self.lock:
            self.kill()
            self.start(*options)


@pytest.fixture
def phoenix(binary, tmp_path):
    phoenix = Phoenix(binary, tmp_path / "server.sock", "--instance=seq-mnist=shared")
    yield phoenix
    phoenix.kill()


@pytest.fixture
def connected(phoenix):
    with backboned.connect(phoenix.target, reconnect_timeout=60) as server:
        yield server


@pytest.fixture
def hasty(phoenix):
    with backboned.connect(phoenix.target, reconnect_timeout=0.3) as server:
        yield server


def is_there(server):
    try:
        return bool(server.info())
    except backboned.errors.Unavailable:
        return False


def mlp(server, **options):
    return server.create("seq-mnist", seed=0, **options)


def resnet(server, **options):
    return server.create(
        architecture="resnet18", num_classes=10, num_filters=4, seed=0, **options
    )


SHAPES = {mlp: (1, 28, 28), resnet: (3, 16, 16)}


def batches(make):
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.rand(16, *SHAPES[make], generator=generator)
        yield x, torch.randint(10, (16,), generator=generator)


def train(net, make, at=lambda point: None):
    """Train; `at` is told each point of each step. Gives the losses."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step, (x, y) in enumerate(batches(make)):
        optimizer.zero_grad()
        at((step, "forward"))
        loss = F.cross_entropy(net(x), y) + 0.1 * net(x.flip(0)).square().mean()
        at((step, "backward"))
        loss.backward()
        at((step, "step"))
        optimizer.step()
        losses.append(loss.item())
    return losses


def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    different = [k for k in found if not torch.equal(found[k], expected[k])]
    assert not different


@pytest.mark.parametrize("make", [mlp, resnet])
@pytest.mark.parametrize("point", ["forward", "backward", "step"])
def test_training_goes_on_with_the_same_bits(phoenix, connected, make, point, caplog):
    undisturbed = make(connected)
    losses = train(undisturbed, make)
    net = make(connected)
    uid = net.instance.uid
    with caplog.at_level(logging.WARNING, "backboned"):
        found = train(net, make, lambda p: p == (3, point) and phoenix.restart())
    assert found == losses
    assert_same(state(net), state(undisturbed))
    assert net.instance.uid != uid
    # It is pushed at the next forward; the server then has what is here.
    net.eval()(next(iter(batches(make)))[0])
    assert torch.equal(torch.from_numpy(net.instance.get_params()), net.get_params())
    assert [r.message for r in caplog.records] == [
        f"the server at {phoenix.target} was restarted; {net.instance.address} goes on "
        "from what this process has"
    ]


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_random_moments_changes_no_bit(phoenix, connected, seed):
    undisturbed = resnet(connected)
    losses = train(undisturbed, resnet)
    net = resnet(connected)
    dice = random.Random(seed)
    moments = {
        (dice.randrange(STEPS), dice.choice(["forward", "backward", "step"]))
        for _ in range(2)
    }
    timers = []

    def at(point):
        if point in moments:
            timers.append(threading.Timer(dice.uniform(0, 0.1), phoenix.restart))
            timers[-1].start()
        if point[1] == "step":
            for timer in timers:
                timer.join()

    assert train(net, resnet, at) == losses
    assert_same(state(net), state(undisturbed))


def test_server_killed_again_while_it_is_fed_changes_no_bit(
    phoenix, connected, monkeypatch
):
    net = resnet(connected)
    x = torch.rand(4, 3, 16, 16)
    net(x).square().sum().backward()
    expected = net.get_grads().clone()
    net.zero_grad()
    loss = net(x).square().sum()
    phoenix.restart()
    true, pushes = client_calls.set_params, []

    def fatal(*arguments, **options):
        pushes.append(arguments)
        if len(pushes) == 1:
            phoenix.restart()
        return true(*arguments, **options)

    monkeypatch.setattr(client_calls, "set_params", fatal)
    loss.backward()
    assert len(pushes) == 2
    assert torch.equal(net.get_grads(), expected)


def test_named_instance_comes_back_under_its_name(phoenix, connected):
    net = mlp(connected, name="mine", frozen="fc1.*")
    x = torch.rand(2, 1, 28, 28)
    before = net(x)
    phoenix.restart()
    assert torch.equal(net(x), before)
    there = connected.instance("mine", module=False)
    assert there.uid == net.instance.uid and there.frozen == ("fc1.*",)


def test_network_is_copied_while_its_server_is_away(phoenix, connected):
    net = mlp(connected)
    phoenix.kill()
    back = threading.Timer(0.5, phoenix.start)
    back.start()
    twin = copy.deepcopy(net)
    back.join()
    x, _ = next(batches(mlp))
    assert torch.equal(twin(x), net(x))
    assert twin.instance.uid != net.instance.uid


def test_random_numbers_are_drawn_once(phoenix, connected):
    def run(disturb):
        net = connected.create(
            architecture="wide-resnet",
            num_classes=10,
            depth=10,
            widen_factor=1,
            dropout=0.5,
            seed=0,
        )
        torch.manual_seed(5)
        loss = net(torch.rand(4, 3, 16, 16)).square().sum()
        disturb()
        loss.backward()
        return net.get_grads(), torch.rand(3)

    grads, drawn = run(phoenix.restart)
    expected, expected_drawn = run(lambda: None)
    assert torch.equal(grads, expected) and torch.equal(drawn, expected_drawn)


def test_input_and_retained_gradients_survive(phoenix, connected):
    net = mlp(connected)
    x = torch.rand(2, 1, 28, 28, requires_grad=True)
    loss = net(x).square().sum()
    loss.backward(retain_graph=True)
    expected = x.grad.clone(), net.get_grads().clone()
    for _ in range(2):
        phoenix.restart()
        x.grad = None
        net.zero_grad()
        loss.backward(retain_graph=True)
        assert torch.equal(x.grad, expected[0])
        assert torch.equal(net.get_grads(), expected[1])
    assert net.instance.info().tape_count == 1
    del loss
    net(x.detach())
    net.eval()(x.detach())
    assert net.instance.info().tape_count <= 1


def lose_first_answer(monkeypatch, method):
    """Let the first call of a method happen, and its answer be lost."""
    true = getattr(client_calls, method)
    calls = []

    def lossy(function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            if isinstance(result, messages.Prepared):
                result.take = lossy(result.take)
                return result
            calls.append(method)
            if len(calls) == 1:
                raise backboned.errors.Unavailable("the connection broke")
            return result

        return call

    monkeypatch.setattr(client_calls, method, lossy(true))
    return calls


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_lost_answer_changes_no_bit(server, monkeypatch, method):
    undisturbed = resnet(server)
    losses = train(undisturbed, resnet)
    net = resnet(server)
    uid = net.instance.uid
    calls = lose_first_answer(monkeypatch, method)
    assert train(net, resnet) == losses
    assert_same(state(net), state(undisturbed))
    assert net.instance.uid == uid
    assert len(calls) == 2 * STEPS + 1


def test_a_backward_that_was_refused_needs_no_forward_again(server, monkeypatch):
    net = mlp(server)
    x = torch.rand(2, 1, 28, 28)
    loss = net(x).square().sum()
    loss.backward(retain_graph=True)
    expected = net.get_grads().clone()
    net.zero_grad()

    def refuse(*_):
        raise backboned.errors.ResourceExhausted("too much waits")

    with monkeypatch.context() as patched:
        patched.setattr(client_calls, "backward", refuse)
        with pytest.raises(backboned.errors.ResourceExhausted):
            loss.backward(retain_graph=True)
    with torch.no_grad():
        net.classifier.bias.add_(1)
        net(x)  # Which pushes that.
    loss.backward()
    assert torch.equal(net.get_grads(), expected)
    assert net.instance.info().forwards == 2


def test_changed_input_is_an_error_and_no_gradient(phoenix, connected):
    net = mlp(connected)
    x = torch.rand(2, 1, 28, 28)
    loss = net(x).square().sum()
    x.zero_()
    phoenix.restart()
    with pytest.raises(
        backboned.errors.ServerRestarted, match="the input was written since"
    ):
        loss.backward()
    assert all(p.grad is None for p in net.parameters())


def test_changed_parameters_are_an_error_and_no_gradient(phoenix, connected):
    net = mlp(connected)
    loss = net(torch.rand(2, 1, 28, 28)).square().sum()
    with torch.no_grad():
        net.classifier.bias.add_(1)
    phoenix.restart()
    with pytest.raises(
        backboned.errors.ServerRestarted, match="parameters were changed"
    ):
        loss.backward()
    assert all(p.grad is None for p in net.parameters())


def test_moved_statistics_are_an_error_in_evaluation_only(phoenix, connected):
    net = resnet(connected)
    x = torch.rand(4, 3, 16, 16)
    evaluated = net.eval()(x).square().sum()
    trained = net.train()(x).square().sum()
    phoenix.restart()
    with pytest.raises(
        backboned.errors.ServerRestarted, match="statistics have moved on"
    ):
        evaluated.backward()
    trained.backward()
    assert net.get_grads().isfinite().all()


def test_server_that_stays_away_is_an_error(phoenix):
    with backboned.connect(phoenix.target, reconnect_timeout=0.3) as server:
        net = mlp(server)
        loss = net(torch.rand(2, 1, 28, 28)).sum()
        phoenix.kill()
        for call in (loss.backward, lambda: net(torch.rand(2, 1, 28, 28))):
            with pytest.raises(
                backboned.errors.Unavailable, match=r"waited 0\.3 s for it"
            ):
                call()
        assert all(p.grad is None for p in net.parameters())
        phoenix.start()
        wait_until(lambda: is_there(server))
        loss.backward()
        assert net.get_grads().isfinite().all()


def test_step_in_flight_to_a_server_that_is_gone(phoenix, hasty):
    net = mlp(hasty)
    optimizer = optim.SGD(net, lr=0.1)
    x, terms = torch.rand(2, 1, 28, 28), [CrossEntropy(torch.tensor([1, 2]))]
    net.train_step(x, terms, optimizer)
    phoenix.kill()
    step = net.train_step_async(x, terms, optimizer)
    with pytest.raises(backboned.errors.Unavailable, match="resume from a checkpoint"):
        step.result()
    phoenix.start()
    wait_until(lambda: is_there(hasty))
    with pytest.raises(
        backboned.errors.ServerRestarted, match="resume from a checkpoint"
    ):
        net.state_dict()


def test_zero_timeout_does_not_wait(phoenix):
    with backboned.connect(phoenix.target, reconnect_timeout=0) as server:
        net = mlp(server)
        phoenix.kill()
        with pytest.raises(backboned.errors.Unavailable) as caught:
            net(torch.rand(2, 1, 28, 28))
        assert "waited" not in caught.value.message


@pytest.mark.parametrize("take", ["instance", "exist_ok"])
def test_what_somebody_else_made_is_not_made_again(phoenix, connected, take):
    mlp(connected, name="theirs", module=False)
    if take == "instance":
        net = connected.instance("theirs")
    else:
        net = mlp(connected, name="theirs", exist_ok=True)
    phoenix.restart()
    with pytest.raises(backboned.errors.ServerRestarted, match="somebody else made"):
        net(torch.rand(2, 1, 28, 28))
    assert [i.name for i in connected.instances()] == ["shared"]


def test_later_column_is_not_made_again(phoenix, connected):
    options = {"architecture": "mnistmlp-pnn", "num_classes": 10, "input_size": 784}
    first = connected.create(**options)
    second = connected.create(**options, columns=[first])
    phoenix.restart()
    with pytest.raises(backboned.errors.ServerRestarted, match="later column"):
        second(torch.rand(2, 1, 28, 28))


def test_what_comes_back_by_itself_is_taken_if_it_is_the_same(phoenix, connected):
    net = connected.instance("shared")
    x = torch.rand(2, 1, 28, 28)
    before = net(x)
    phoenix.restart()
    assert torch.equal(net(x), before)
    with torch.no_grad():
        net.classifier.bias.add_(1)
    net(x)
    phoenix.restart()
    with pytest.raises(backboned.errors.ServerRestarted, match="not the one"):
        net(x)
    fresh = connected.instance("shared")
    assert torch.equal(fresh(x), before)


def test_deleted_instance_is_not_made_again(connected):
    net = mlp(connected, name="gone")
    connected.delete("gone")
    with pytest.raises(backboned.errors.NotFound):
        net(torch.rand(2, 1, 28, 28))


def test_hosted_network_says_what_is_lost(phoenix, hasty):
    net = mlp(hasty)
    optimizer = optim.SGD(net, lr=0.1)
    x = torch.rand(2, 1, 28, 28)
    net(x).sum().backward()
    optimizer.step()
    loss = net(x).sum()
    phoenix.kill()
    with pytest.raises(backboned.errors.Unavailable, match="resume from a checkpoint"):
        net(x)
    phoenix.start()
    wait_until(lambda: is_there(hasty))
    lost = "was restarted.*optimizer's state.*resume from a checkpoint"
    loss.backward()
    optimizer.step()
    for call in (lambda: net(x), net.state_dict, optimizer.state_dict):
        with pytest.raises(backboned.errors.ServerRestarted, match=lost):
            call()


HOSTED_USES = {
    "deepcopy": lambda net, optimizer: copy.deepcopy(net),
    "grad": lambda net, optimizer: net.fc1.weight.grad.norm(),
    "get_grads": lambda net, optimizer: net.get_grads(),
    "backward": lambda net, optimizer: net.fc1.weight.square().sum().backward(),
    "mirror": lambda net, optimizer: net.mirror(),
    "describe": lambda net, optimizer: net.describe(),
    "zeros": lambda net, optimizer: [
        optimizer.zero_grad(set_to_none=False),
        optimizer.step(),
    ],
    "clip": lambda net, optimizer: torch.nn.utils.clip_grad_norm_(net.parameters(), 1),
    "optimizer": lambda net, optimizer: optimizer.state_dict(),
    "thaw": lambda net, optimizer: optim.SGD(net.requires_grad_()).step(),
}


@pytest.mark.parametrize("use", HOSTED_USES.values(), ids=HOSTED_USES)
def test_every_use_of_a_hosted_network_says_what_is_lost(phoenix, connected, use):
    net = mlp(connected, frozen="classifier.*")
    optimizer = optim.SGD(net, lr=0.1)
    net(torch.rand(2, 1, 28, 28)).sum().backward()
    optimizer.step()
    phoenix.restart()
    with pytest.raises(
        backboned.errors.ServerRestarted, match="resume from a checkpoint"
    ):
        use(net, optimizer)


def test_the_description_of_a_mirrored_network_outlives_the_server(phoenix, connected):
    net = mlp(connected)
    first = net.describe()["digest"]
    phoenix.restart()
    assert net.describe()["digest"] == first


def test_hosted_training_resumes_from_a_checkpoint(phoenix, connected, tmp_path):
    def fresh():
        net = mlp(connected)
        return net, optim.SGD(net, lr=0.05, momentum=0.9)

    def steps(net, optimizer, data):
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    data = list(batches(mlp))
    expected, optimizer = fresh()
    steps(expected, optimizer, data)
    expected = state(expected)
    net, optimizer = fresh()
    steps(net, optimizer, data[:4])
    torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "checkpoint")
    phoenix.restart()
    with pytest.raises(backboned.errors.ServerRestarted):
        steps(net, optimizer, data[4:])
    net, optimizer = fresh()
    saved = torch.load(tmp_path / "checkpoint")
    net.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    steps(net, optimizer, data[4:])
    assert_same(state(net), expected)
