"""Training steps in flight: made in order, with the bits of one after the other."""

import concurrent.futures
import multiprocessing
import threading

import backboned
import grpc
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backboned import CrossEntropy, optim
from backboned.transport import messages
from backboned.types import ParameterGroup
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import error_pb2
from fake_server import fake_instance, message_of, scripted_server
from hosted_pairs import (
    assert_same,
    assert_same_networks,
    assert_same_optimizers,
    batches,
    make_optimizer,
    make_pair,
)

pytestmark = pytest.mark.transports

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
GROUPS = [ParameterGroup(lr=0.1, momentum=0.9)]


@pytest.fixture(params=["mlp", "resnet"])
def kind(request):
    return request.param


@pytest.fixture
def trained(mlp):
    """An instance with an optimizer."""
    mlp.configure_optimizer("sgd", GROUPS)
    return mlp


def labels_of_no_class():
    return [CrossEntropy(np.full(6, 10))]


class TestInstance:
    def test_bits_are_those_of_one_step_after_the_other(self, server):
        one, other = (
            server.create("seq-mnist", seed=0, module=False) for _ in range(2)
        )
        for instance in (one, other):
            instance.configure_optimizer("sgd", GROUPS)
        data = [(x.numpy(), [CrossEntropy(y)]) for x, y in batches("mlp", 12)]
        waited = [one.train_step(x, terms, return_logits=True) for x, terms in data]
        sent = [
            other.train_step_async(x, terms, return_logits=True) for x, terms in data
        ]
        for step, theirs in zip(sent, waited):
            ours = step.result()
            assert (ours.loss, ours.losses) == (theirs.loss, theirs.losses)
            assert ours.logits.tobytes() == theirs.logits.tobytes()
            assert ours.version.params == theirs.version.params
        assert other.version == sent[-1].result().version
        assert other.get_params().tobytes() == one.get_params().tobytes()

    def test_what_is_sent_may_be_changed_at_once(self, trained):
        x, y = np.zeros((6, 1, 28, 28), np.float32), np.zeros(6, np.int64)
        expected = trained.clone().forward(x, training=True).out
        step = trained.train_step_async(x, [CrossEntropy(y)], return_logits=True)
        x[:], y[:] = np.nan, 10
        assert step.result().logits.tobytes() == expected.tobytes()

    def test_it_is_a_future(self, trained):
        x, y = next(batches("mlp", 1))
        steps = [trained.train_step_async(x, [CrossEntropy(y)]) for _ in range(3)]
        assert not steps[0].cancel()
        done = concurrent.futures.as_completed(steps, timeout=60)
        assert len({step.result().version.params for step in done}) == 3
        assert steps[0].exception() is None

    def test_a_step_that_fails_changes_nothing(self, trained):
        x, y = next(batches("mlp", 1))
        good = trained.train_step_async(x, [CrossEntropy(y)]).result()
        bad = trained.train_step_async(x, labels_of_no_class())
        with pytest.raises(backboned.errors.InvalidArgument, match=r"not in \[0, 10\)"):
            bad.result()
        assert trained.info().version == good.version
        after = trained.train_step_async(x, [CrossEntropy(y)]).result()
        assert after.version.params == good.version.params + 1

    def test_an_error_that_nobody_saw_is_raised_by_the_next(self, trained):
        x, y = next(batches("mlp", 1))
        bad = trained.train_step_async(x, labels_of_no_class())
        concurrent.futures.wait([bad])
        before = trained.info().version
        with pytest.raises(backboned.errors.InvalidArgument, match=r"not in \[0, 10\)"):
            trained.train_step_async(x, [CrossEntropy(y)])
        assert trained.info().version == before
        assert trained.train_step_async(x, [CrossEntropy(y)]).exception() is None

    def test_a_change_by_somebody_else_is_stale(self, server, trained):
        x, y = next(batches("mlp", 1))
        other = server.instance(trained.name, module=False)
        other.set_params(np.zeros(trained.layout.elements, np.float32))
        stale = trained.train_step_async(x, [CrossEntropy(y)])
        with pytest.raises(backboned.errors.StaleVersion):
            stale.result()
        trained.get_params()  # Now this object has seen it.
        assert trained.train_step_async(x, [CrossEntropy(y)]).exception() is None

    def test_what_cannot_be_sent_is_refused_at_once(self, trained):
        with pytest.raises(backboned.errors.InvalidArgument, match="<U1"):
            trained.train_step_async(np.array(["a"]), [])
        x, y = next(batches("mlp", 1))
        assert trained.train_step_async(x, [CrossEntropy(y)]).exception() is None


class TestPipeline:
    """Against a server that is told when to answer, and what."""

    @pytest.fixture
    def script_and_instance(self):
        with scripted_server() as (script, channel):
            yield script, fake_instance(channel)

    def test_one_that_comes_too_early_is_sent_again(self, script_and_instance):
        script, instance = script_and_instance
        refused, made = threading.Event(), []

        def answer(received, context):
            header = pb.TrainStepRequest.FromString(received[0]).header
            if header.request_id == "first":
                refused.wait(30)
            elif header.if_version.params != 1 + len(made):
                refused.set()
                refuse_as_stale(context)
            made.append(header.request_id)
            yield train_answer(1 + len(made))

        script.answers["TrainStep"] = answer
        x = np.zeros((1, 1), np.float32)
        ids = ["first", "second", "third"]
        steps = [instance.train_step_async(x, [], request_id=i) for i in ids]
        assert [step.result(30).version.params for step in steps] == [2, 3, 4]
        assert made == ids
        assert len(script.requests) >= 4

    def test_those_behind_one_that_fails_are_not_made(self, script_and_instance):
        script, instance = script_and_instance
        all_sent, made = threading.Event(), []

        def answer(received, context):
            header = pb.TrainStepRequest.FromString(received[0]).header
            all_sent.wait(30)
            if header.request_id == "bad":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such label")
            if header.if_version.params != 1 + len(made):
                refuse_as_stale(context)
            made.append(header.request_id)
            yield train_answer(1 + len(made))

        script.answers["TrainStep"] = answer
        x = np.zeros((1, 1), np.float32)
        ids = ["good", "bad", "behind", "far-behind"]
        good, bad, *behind = [
            instance.train_step_async(x, [], request_id=i) for i in ids
        ]
        all_sent.set()
        for step in behind:
            with pytest.raises(
                backboned.errors.StepNotMade, match="failed .no such label"
            ):
                step.result(30)
        with pytest.raises(backboned.errors.InvalidArgument, match="no such label"):
            bad.result()
        assert good.result().version.params == 2
        later = instance.train_step_async(x, [], request_id="later")
        assert later.result(30).version.params == 3
        assert made == ["good", "later"]

    def test_no_more_are_under_way_than_the_depth(self, script_and_instance):
        script, instance = script_and_instance
        gate = threading.Event()
        started = []

        def answer(received, context):
            header = pb.TrainStepRequest.FromString(received[0]).header
            started.append(header.request_id)
            gate.wait(30)
            yield train_answer(header.if_version.params + 1)

        script.answers["TrainStep"] = answer
        instance.steps.depth = 2
        x = np.zeros((1, 1), np.float32)
        steps = [instance.train_step_async(x, [], request_id=i) for i in "ab"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            third = pool.submit(instance.train_step_async, x, [], request_id="c")
            with pytest.raises(concurrent.futures.TimeoutError):
                third.result(0.2)
            gate.set()
            assert third.result(30).result(30).version.params == 4
        assert all(step.done() for step in steps)
        assert started[2] == "c"


def refuse_as_stale(context):
    detail = error_pb2.ErrorDetail(reason=error_pb2.ERROR_REASON_STALE_VERSION)
    status = error_pb2.StatusDetails(code=10)
    status.details.add().Pack(detail)
    details = status.SerializeToString()
    context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(grpc.StatusCode.ABORTED, "another version")


def train_answer(params):
    header = pb.TrainStepResult(loss=0.5, losses=[0.5])
    header.version.uid, header.version.params = "u", params
    return message_of(pb.TrainStepResponse, header)


class TestNetwork:
    def test_bits_are_those_of_torch(self, server, kind):
        net, local = make_pair(server, kind)
        ours = make_optimizer(net, "SGD", **SGD)
        theirs = make_optimizer(local, "SGD", **SGD)
        steps, losses = [], []
        for x, y in batches(kind, 8):
            steps.append(net.train_step_async(x, [CrossEntropy(y)], ours))
            theirs.zero_grad()
            loss = F.cross_entropy(local(x), y)
            loss.backward()
            theirs.step()
            losses.append(loss.item())
        assert_same_networks(net, local)
        assert [step.result().loss for step in steps] == losses
        assert ours.last_step is steps[-1].result().step
        assert_same_optimizers(ours, theirs)

    def test_a_step_is_one_call(self, server):
        net, _ = make_pair(server, "mlp")
        optimizer = optim.SGD(net, lr=0.1)
        x, y = next(batches("mlp", 1))
        net.train_step(x, [CrossEntropy(y)], optimizer)
        before = net.traffic
        net.instance.steps.depth = 1
        for _ in range(5):
            optimizer.zero_grad()
            net.train_step_async(x, [CrossEntropy(y)], optimizer)
        assert net.fc1.weight.grad is None
        assert (net.traffic - before).round_trips == 5

    @pytest.mark.parametrize(
        "use",
        [
            lambda net, optimizer: net.fc1.weight.norm(),
            lambda net, optimizer: net(torch.zeros(1, 1, 28, 28)),
            lambda net, optimizer: net.state_dict(),
            lambda net, optimizer: optimizer.state_dict(),
            lambda net, optimizer: net.mirror(),
            lambda net, optimizer: net.pull(),
        ],
        ids=["read", "forward", "state_dict", "optimizer", "mirror", "pull"],
    )
    def test_the_next_use_waits_and_raises_what_nobody_saw(self, net, use):
        optimizer = optim.SGD(net, lr=0.1)
        x, y = next(batches("mlp", 1))
        good = net.train_step_async(x, [CrossEntropy(y)], optimizer)
        bad = net.train_step_async(x, labels_of_no_class(), optimizer)
        with pytest.raises(backboned.errors.InvalidArgument, match=r"not in \[0, 10\)"):
            use(net, optimizer)
        assert good.done() and bad.done()
        use(net, optimizer)
        expected = net.instance.info().version.params
        assert expected == good.result().version.params

    def test_an_error_that_was_seen_is_not_raised_again(self, net):
        optimizer = optim.SGD(net, lr=0.1)
        before = net.get_params().clone()
        bad = net.train_step_async(
            torch.rand(6, 1, 28, 28), labels_of_no_class(), optimizer
        )
        assert isinstance(bad.exception(), backboned.errors.InvalidArgument)
        assert torch.equal(net.get_params(), before)

    def test_it_is_not_raised_again_by_one_that_ends_while_it_is_waited_for(
        self, net, monkeypatch
    ):
        optimizer = optim.SGD(net, lr=0.1)
        x, y = next(batches("mlp", 1))
        before = net.get_params().clone()
        both_sent, waited_for = threading.Event(), threading.Event()
        true = backboned.steps._in_turn

        def in_turn(step, first, call):
            try:
                return true(step, first, call)
            finally:
                (both_sent if first is None else waited_for).wait(30)

        monkeypatch.setattr(backboned.steps, "_in_turn", in_turn)
        bad = net.train_step_async(x, labels_of_no_class(), optimizer)
        behind = net.train_step_async(x, [CrossEntropy(y)], optimizer)
        both_sent.set()
        assert isinstance(bad.exception(), backboned.errors.InvalidArgument)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            use = pool.submit(net.get_params)
            with pytest.raises(concurrent.futures.TimeoutError):
                use.result(0.2)
            waited_for.set()
            assert torch.equal(use.result(30), before)
        assert isinstance(behind.exception(), backboned.errors.StepNotMade)

    def test_after_an_error_that_was_seen_steps_are_made_again(self, net):
        optimizer = optim.SGD(net, lr=0.1)
        x, y = next(batches("mlp", 1))
        good = net.train_step_async(x, [CrossEntropy(y)], optimizer)
        bad = net.train_step_async(x, labels_of_no_class(), optimizer)
        assert isinstance(bad.exception(), backboned.errors.InvalidArgument)
        again = net.train_step_async(x, [CrossEntropy(y)], optimizer)
        assert again.result().version.params == good.result().version.params + 1

    def test_what_is_written_in_between_comes_in_order(self, server):
        net, local = make_pair(server, "mlp")
        ours = make_optimizer(net, "SGD", **SGD)
        theirs = make_optimizer(local, "SGD", **SGD)
        for number, (x, y) in enumerate(batches("mlp", 6)):
            net.train_step_async(x, [CrossEntropy(y)], ours)
            theirs.zero_grad()
            F.cross_entropy(local(x), y).backward()
            theirs.step()
            with torch.no_grad():
                for side in (net, local):
                    if number == 1:
                        side.classifier.bias.fill_(1)
                    if number == 3:
                        side.fc1.weight.mul_(0.9)
        with torch.no_grad():
            for side in (net, local):
                side.classifier.bias.copy_(torch.arange(10))
        assert_same(net.classifier.bias, local.classifier.bias)
        assert_same_networks(net, local)

    def test_what_is_written_before_an_ordinary_step(self, server):
        net, local = make_pair(server, "mlp")
        ours = make_optimizer(net, "SGD", **SGD)
        theirs = make_optimizer(local, "SGD", **SGD)
        for x, y in batches("mlp", 3):
            net.train_step_async(x, [CrossEntropy(y)], ours)
            theirs.zero_grad()
            F.cross_entropy(local(x), y).backward()
            theirs.step()
            theirs.zero_grad()
            with torch.no_grad():
                for side in (net, local):
                    side.classifier.bias.zero_()
            for optimizer in (ours, theirs):
                optimizer.step()
        assert_same_networks(net, local)

    @pytest.mark.parametrize("use", ["forward", "train_step_async"])
    def test_a_forked_child_has_none_in_flight(self, net, monkeypatch, use):
        optimizer = optim.SGD(net, lr=0.1)
        x, y = next(batches("mlp", 1))
        net.train_step(x, [CrossEntropy(y)], optimizer)
        released, true = threading.Event(), messages.exchange

        def exchange(*arguments):
            released.wait(30)
            return true(*arguments)

        monkeypatch.setattr(messages, "exchange", exchange)
        step = net.train_step_async(x, [CrossEntropy(y)], optimizer)

        def child():
            released.set()
            if use == "forward":
                with torch.no_grad():
                    net(x)
            else:
                net.train_step_async(x, [CrossEntropy(y)], optimizer).result()

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(20)
        process.kill()
        process.join()
        released.set()
        assert process.exitcode == 0
        step.exception()

    def test_between_ordinary_steps(self, server):
        net, local = make_pair(server, "mlp")
        ours = make_optimizer(net, "SGD", **SGD)
        theirs = make_optimizer(local, "SGD", **SGD)
        for number, (x, y) in enumerate(batches("mlp", 8)):
            if number % 4 < 2:
                net.train_step_async(x, [CrossEntropy(y)], ours)
            elif number % 4 == 2:
                F.cross_entropy(net(x), y).backward()
                ours.step()
                ours.zero_grad()
            else:
                # Gradients that wait do not count for a whole step.
                F.cross_entropy(net(x), y).backward()
                net.train_step_async(x, [CrossEntropy(y)], ours)
            theirs.zero_grad()
            F.cross_entropy(local(x), y).backward()
            theirs.step()
        assert_same_networks(net, local)

    def test_a_network_that_draws(self, server):
        arguments = {"num_classes": 10, "efficientnet_type": "b0"}
        nets = [
            server.create(architecture="efficientnet", seed=0, **arguments)
            for _ in range(2)
        ]
        x, y = torch.rand(2, 3, 32, 32), torch.tensor([1, 2])
        states = []
        for net, name in zip(nets, ("train_step", "train_step_async")):
            torch.manual_seed(3)
            optimizer = optim.SGD(net, lr=0.1)
            for _ in range(2):
                getattr(net, name)(x, [CrossEntropy(y)], optimizer)
            states.append(torch.get_rng_state())
        assert torch.equal(*states)
        assert torch.equal(*(net.get_params() for net in nets))

    def test_in_evaluation_mode(self, net):
        optimizer = optim.SGD(net)
        x, y = next(batches("mlp", 1))
        with pytest.raises(RuntimeError, match=r"call net\.train\(\) first"):
            net.eval().train_step_async(x, [CrossEntropy(y)], optimizer)

    def test_a_change_by_somebody_else(self, server, net):
        optimizer = optim.SGD(net, lr=0.1)
        x, y = next(batches("mlp", 1))
        net.train_step(x, [CrossEntropy(y)], optimizer)
        other = server.instance(net.name, module=False)
        other.set_params(np.zeros(net.layout.elements, np.float32))
        step = net.train_step_async(x, [CrossEntropy(y)], optimizer)
        with pytest.raises(
            backboned.errors.StaleVersion, match=r"net\.pull\(\)"
        ) as caught:
            step.result()
        assert caught.value.message.count("net.pull()") == 1
        net.pull()
        assert net.train_step_async(x, [CrossEntropy(y)], optimizer).result()
