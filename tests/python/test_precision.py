"""The numbers with which an instance computes, against PyTorch."""

import threading

import backboned
import numpy as np
import pytest
import torch
from backboned.types import ParameterGroup
from fake_gpu import is_built, serving
from reference_models import ReferenceResNet18, seeded
from torch import nn

fake = pytest.mark.skipif(not is_built(), reason="there is no fake device here")


def x_of(rows, *shape, seed=0):
    random = np.random.default_rng(seed)
    return random.random((rows, *(shape or (1, 28, 28))), np.float32)


def resnet(server, **options):
    arguments = {"num_classes": 3, "num_filters": 8, "seed": 2, "module": False}
    return server.create(architecture="resnet18", **arguments, **options)


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def test_bfloat16_computes_as_autocast(server):
    net = resnet(server, precision="bfloat16")
    model = seeded(lambda: ReferenceResNet18(3, 8), 2).train()
    x, target = x_of(4, 3, 16, 16), np.array([0, 2, 1, 2])
    taped = net.forward(x, training=True, tape=True)
    with autocast():
        out = model(torch.from_numpy(x))
    assert out.dtype == torch.bfloat16
    assert taped.out.dtype == np.float32
    assert np.array_equal(taped.out, out.detach().float().numpy())
    ones = {"out": np.ones_like(taped.out)}
    grads = net.backward({taped.tape_id: ones}).grads.split(net.layout)
    out.float().sum().backward()
    for got, parameter in zip(grads, model.parameters()):
        assert np.array_equal(got, parameter.grad.numpy())
    for name, buffer in model.named_buffers():
        assert np.array_equal(net.get_buffers()[name], buffer.numpy())

    net.configure_optimizer("sgd", [ParameterGroup(lr=0.1)])
    done = net.train_step(x, [backboned.CrossEntropy(target)])
    model.zero_grad()
    with autocast():
        out = model(torch.from_numpy(x))
    loss = nn.functional.cross_entropy(out.float(), torch.from_numpy(target))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert done.loss == loss.item()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert np.array_equal(net.get_params(), flat.numpy())

    evaluated = net.forward(x)
    merged = net.extract(x, output="out").data
    with autocast(), torch.no_grad():
        out = model.eval()(torch.from_numpy(x)).float().numpy()
    assert np.array_equal(evaluated.out, out)
    assert np.array_equal(merged, out)


def test_a_demoted_tape_computes_with_its_precision_again(start):
    kept, demoted = (start(options=[f"--max-tape-bytes={b}"]) for b in ("1GiB", "64KB"))
    x = x_of(4, 3, 16, 16)
    results = []
    for server in (kept, demoted):
        net = resnet(server, precision="bfloat16")
        tape = net.forward(x, training=True, tape=True)
        ones = {"out": np.ones_like(tape.out)}
        results.append(net.backward({tape.tape_id: ones}).grads.flat)
    assert net.info().replayed_forwards == 1
    assert np.array_equal(*results)


def test_clones_have_the_precision_of_their_source(server):
    net = server.create("seq-mnist", precision="bfloat16", seed=0, module=False)
    plain = server.create("seq-mnist", seed=0, module=False)
    assert net.precision == net.info().precision == "bfloat16"
    assert plain.precision is None
    x = x_of(3)
    assert not np.array_equal(net.forward(x).out, plain.forward(x).out)
    clone, fork = net.clone(), net.clone(num_classes=10, seed=5)
    assert clone.precision == fork.precision == "bfloat16"
    assert np.array_equal(clone.forward(x).out, net.forward(x).out)


def test_a_precision_is_part_of_what_an_instance_is(server):
    made = {"name": "precise", "seed": 0, "module": False}
    server.create("seq-mnist", precision="tf32", **made)
    server.create("seq-mnist", precision="tf32", exist_ok=True, **made)
    with pytest.raises(backboned.errors.AlreadyExists, match="has another precision"):
        server.create("seq-mnist", exist_ok=True, **made)


def test_what_is_no_precision_is_refused(server):
    with pytest.raises(backboned.errors.InvalidArgument, match="'tf32' or 'bfloat16'"):
        server.create("seq-mnist", precision="bf16")
    with pytest.raises(backboned.errors.InvalidArgument, match="needs dtype float32"):
        server.create("seq-mnist", precision="bfloat16", dtype="float64")


@pytest.mark.cpu
@pytest.mark.parametrize("precision", ["highest", "tf32"])
def test_the_processor_knows_no_tf32(server, precision):
    x = x_of(3)
    plain = server.create("seq-mnist", seed=0, module=False)
    net = server.create("seq-mnist", seed=0, precision=precision, module=False)
    assert np.array_equal(net.forward(x).out, plain.forward(x).out)


@fake
def test_tf32_is_an_instances_own(tmp_path):
    """The fake device rounds what products read, if they may."""
    x = x_of(3)
    target = [backboned.CrossEntropy(np.array([0, 2, 1]))]
    with serving(tmp_path) as (server, _):
        nets = {
            precision: server.create(
                "seq-mnist", seed=0, precision=precision, module=False
            )
            for precision in (None, "highest", "tf32")
        }
        numerics = server.info().numerics
        out = {precision: net.forward(x).out for precision, net in nets.items()}
        assert server.info().numerics == numerics
        assert np.array_equal(out[None], out["highest"])
        assert not np.array_equal(out[None], out["tf32"])
        assert np.allclose(out[None], out["tf32"], atol=5e-3)
        assert np.array_equal(nets[None].forward(x).out, out[None])
        losses = []
        for net in nets.values():
            net.configure_optimizer("sgd", [ParameterGroup(lr=0.1)])
            net.train_step(x, target)
            losses.append(net.train_step(x, target).loss)
        assert losses[0] == losses[1] != losses[2]


@fake
def test_instances_of_two_gpus_keep_their_precision_beside_each_other(tmp_path):
    x = x_of(16)
    with serving(tmp_path, "cuda:0,cuda:1", devices=2, kernel_us=100) as (server, _):
        nets = [
            server.create(
                "seq-mnist", seed=0, device=device, precision=precision, module=False
            )
            for device, precision in (("cuda:0", None), ("cuda:1", "tf32"))
        ]
        expected = [net.forward(x).out for net in nets]
        assert not np.array_equal(*expected)
        found = [[], []]

        def run(i):
            for _ in range(30):
                found[i].append(nets[i].forward(x).out)

        threads = [threading.Thread(target=run, args=(i,)) for i in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for outs, out in zip(found, expected):
        assert len(outs) == 30
        assert all(np.array_equal(each, out) for each in outs)
