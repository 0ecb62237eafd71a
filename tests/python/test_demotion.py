"""Tapes over their budget are run again, against PyTorch that keeps its graphs."""

import numpy as np
import pytest
import torch
from reference_models import ReferenceResNet18, ReferenceWideResNet, seeded

NETWORKS = {
    "resnet18": (
        {"num_classes": 3, "num_filters": 8},
        lambda: ReferenceResNet18(3, 8),
    ),
    "wide-resnet": (
        {"num_classes": 3, "depth": 10, "widen_factor": 2, "dropout": 0.5},
        lambda: ReferenceWideResNet(3, 10, 2, 0.5),
    ),
}


@pytest.mark.parametrize("architecture", NETWORKS)
def test_training_over_the_budget_equals_pytorch(server, start, architecture):
    arguments, make = NETWORKS[architecture]
    roomy = server.create(architecture=architecture, module=False, **arguments)
    batch = np.zeros((4, 3, 16, 16), np.float32)
    one_tape = roomy.forward(batch, training=True, tape=True).tape_bytes
    # A quarter of what the four tapes of a step need.
    tight = start(
        threads=torch.get_num_threads(), options=[f"--max-tape-bytes={one_tape}"]
    )
    net = tight.create(architecture=architecture, seed=2, module=False, **arguments)
    model = seeded(make, 2).train()
    torch.manual_seed(7)
    state = torch.get_rng_state().numpy().tobytes()
    for step in range(3):
        tapes, outputs, inputs = {}, [], []
        for part in range(4):
            x = torch.rand(
                (4, 3, 16, 16),
                generator=torch.Generator().manual_seed(part + 10 * step),
            )
            x.requires_grad_()
            outputs.append(model(x))
            inputs.append(x)
            forward = net.forward(
                x.detach().numpy(),
                training=True,
                tape=True,
                input_grad=True,
                rng_state=state,
            )
            state = forward.rng_state
            assert np.array_equal(forward.out, outputs[-1].detach().numpy())
            tapes[forward.tape_id] = {"out": np.full_like(forward.out, part + 1.0)}
        model.zero_grad()
        loss = sum((part + 1) * out.sum() for part, out in enumerate(outputs))
        loss.backward()
        result = net.backward(tapes, input_grad=True)
        for got, parameter in zip(result.grads.split(net.layout), model.parameters()):
            assert np.array_equal(got, parameter.grad.numpy())
        for got, x in zip(result.input_grads, inputs):
            assert np.array_equal(got, x.grad.numpy())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.01 * parameter.grad)
        flat = [p.detach().flatten() for p in model.parameters()]
        net.set_params(torch.cat(flat).numpy())
    for name, buffer in model.named_buffers():
        assert np.array_equal(net.get_buffers()[name], buffer.numpy())
    info = net.info()
    assert info.demoted_tapes >= 9
    assert info.replayed_forwards == info.demoted_tapes
    assert (info.tape_count, info.tape_bytes) == (0, 0)
