"""Uses of a network in PyTorch: one function for each row of a table.

A row trains or uses `side.net` and gives the tensors that a comparison needs. It is run
on a network in a server and on its equal in this process, by the same code.
"""

import collections
import copy
import io
import pickle
import threading
import warnings

import torch
import torch.nn.functional as F
from backboned import optim
from hosted_pairs import SHAPES, batches
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

STEPS = 4
HOSTED = ("SGD", "Adam", "AdamW")
"""The optimizers that a hosted network has."""


class NotHostedError(Exception):
    """The row needs something that is in this process only."""


class Side:
    """One of the two networks, and how a row makes its optimizer."""

    def __init__(self, net, kind, hosted):
        self.net = net
        self.kind = kind
        self.hosted = hosted
        self.traffic = []

    def optimizer(self, name="SGD", params=None, **options):
        """Make an optimizer, in the server where the network is hosted."""
        if name == "SGD":
            options.setdefault("lr", 0.05)
        if self.hosted and name not in HOSTED:
            raise NotHostedError
        params = list(self.net.parameters()) if params is None else params
        where = optim if self.hosted else torch.optim
        return getattr(where, name)(params, **options)

    def batches(self, count=STEPS, seed=1):
        """Give inputs and labels, and note the traffic between them."""
        for x, y in batches(self.kind, count, seed):
            self.note()
            yield x, y
        self.note()

    def note(self):
        """Note how many bytes have travelled."""
        if hasattr(self.net, "instance"):
            self.traffic.append(self.net.traffic)

    def loss(self, x, y):
        return F.cross_entropy(self.net(x), y)


def train(side, optimizer, between=None, count=STEPS):
    """Train, and call `between` after each step."""
    losses = []
    for x, y in side.batches(count):
        optimizer.zero_grad()
        loss = side.loss(x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if between:
            between(loss.detach())
    return losses


def optimizer_row(name):
    """Train with an optimizer of torch.optim, through a closure as LBFGS needs it."""

    def row(side):
        params = list(side.net.parameters())
        if name == "Muon":
            params = [p for p in params if p.ndim == 2]
        optimizer = side.optimizer(name, params)
        losses = []
        for x, y in side.batches():

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = side.loss(x, y)
                loss.backward()
                return loss

            losses.append(optimizer.step(closure).detach())
        return losses

    return row


def scheduler_row(make, name="SGD", **options):
    """Train beside a scheduler."""

    def row(side):
        optimizer = side.optimizer(name, **(options or {"momentum": 0.9}))
        scheduler = make(optimizer)

        def after(loss):
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(loss)
            else:
                scheduler.step()

        losses = train(side, optimizer, after)
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        return [*losses, torch.tensor(rates)]

    return row


def _sequential(optimizer):
    return lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.ConstantLR(optimizer, 0.5, 2),
            lr_scheduler.ExponentialLR(optimizer, 0.9),
        ],
        milestones=[2],
    )


def _chained(optimizer):
    return lr_scheduler.ChainedScheduler(
        [
            lr_scheduler.ConstantLR(optimizer, 0.5, 2),
            lr_scheduler.ExponentialLR(optimizer, 0.9),
        ]
    )


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 2),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, total_iters=3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": (
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2)
    ),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": _sequential,
    "ChainedScheduler": _chained,
    "SWALR": lambda o: SWALR(o, swa_lr=0.01, anneal_epochs=2),
}


def weight_decay_schedule(side):
    """Another weight decay in each step."""
    optimizer = side.optimizer("AdamW", lr=0.01)

    def after(_):
        optimizer.param_groups[0]["weight_decay"] += 0.01

    return train(side, optimizer, after)


def parameter_groups(side):
    """Groups with settings of their own, and one that is added later."""
    *body, weight, bias = side.net.parameters()
    optimizer = side.optimizer(
        "AdamW",
        [{"params": body, "lr": 1e-3}, {"params": [bias], "weight_decay": 0.1}],
        lr=1e-2,
    )
    losses = train(side, optimizer, count=2)
    optimizer.add_param_group({"params": [weight], "lr": 1e-4})
    return [*losses, *train(side, optimizer)]


def groups_by_type(side):
    """Weight decay for the weights of layers that compute, none for the others."""
    decayed = [
        module.weight
        for module in side.net.modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    chosen = {id(p) for p in decayed}
    rest = [p for p in side.net.parameters() if id(p) not in chosen]
    optimizer = side.optimizer(
        "SGD", [{"params": decayed, "weight_decay": 0.1}, {"params": rest}], lr=0.1
    )
    return [*train(side, optimizer), torch.tensor([len(decayed), len(rest)])]


def initialise_by_type(side):
    """`net.apply` with an initialiser that asks for types."""

    def init(module):
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            torch.nn.init.constant_(module.weight, 0.01)

    side.net.apply(init)
    return train(side, side.optimizer())


def freeze_by_type(side):
    """Every convolution or hidden layer frozen by its type."""
    kind = torch.nn.Conv2d if side.kind == "resnet" else torch.nn.Linear
    optimizer = side.optimizer()
    *layers, _ = [m for m in side.net.modules() if isinstance(m, kind)]
    for layer in layers:
        layer.requires_grad_(False)
    return [*train(side, optimizer), torch.tensor(len(layers))]


class Wrapper(torch.nn.Module):
    """A model of one's own around the network."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def wrapper_zero_grad(side):
    """`zero_grad` of a module that holds the network."""
    model = Wrapper(side.net)
    optimizer = side.optimizer()
    losses = []
    for x, y in side.batches():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def own_head(side):
    """A layer of one's own behind the features."""
    torch.manual_seed(0)
    *_, (_, last) = side.net.named_modules()
    width = list(side.net.parameters())[-2].shape[1]
    head = torch.nn.Linear(width, 10)
    optimizer = side.optimizer()
    head_optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    losses = []
    for x, y in side.batches():
        optimizer.zero_grad()
        head_optimizer.zero_grad()
        remote = hasattr(side.net, "instance")
        features = (
            side.net(x, returnt="features")
            if remote
            else side.net.outputs(x)["features"]
        )
        loss = F.cross_entropy(head(features), y)
        loss.backward()
        optimizer.step()
        head_optimizer.step()
        losses.append(loss.detach())
    return [*losses, head.weight]


def ema(side):
    """An exponential moving average beside the training."""
    optimizer = side.optimizer()
    average = AveragedModel(side.net, multi_avg_fn=None, avg_fn=_ema)
    losses = train(side, optimizer, lambda _: average.update_parameters(side.net))
    x, _ = next(batches(side.kind, 1, 7))
    average.eval()
    with torch.no_grad():
        return [*losses, average(x), *average.parameters()]


def _ema(averaged, current, _):
    return 0.9 * averaged + 0.1 * current


def swa(side):
    """Stochastic weight averaging, and the statistics of the averaged network."""
    optimizer = side.optimizer()
    average = AveragedModel(side.net)
    losses = train(side, optimizer, lambda _: average.update_parameters(side.net))
    update_bn([x for x, _ in batches(side.kind, 3, 5)], average)
    x, _ = next(batches(side.kind, 1, 7))
    average.eval()
    with torch.no_grad():
        return [*losses, average(x), *average.buffers()]


def sam(side):
    """Sharpness-aware minimisation: up along the gradient, gradient, back, step."""
    optimizer = side.optimizer(momentum=0.9)
    params = list(side.net.parameters())
    losses = []
    for x, y in side.batches():
        optimizer.zero_grad()
        loss = side.loss(x, y)
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        with torch.no_grad():
            moves = [p.grad * (0.05 / (norm + 1e-12)) for p in params]
            for p, move in zip(params, moves):
                p.add_(move)
        optimizer.zero_grad()
        side.loss(x, y).backward()
        with torch.no_grad():
            for p, move in zip(params, moves):
                p.sub_(move)
        optimizer.step()
        losses.append(loss.detach())
    return losses


def grad_scaler(side):
    """A GradScaler around the steps."""
    optimizer = side.optimizer()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    losses = []
    for x, y in side.batches():
        optimizer.zero_grad()
        loss = side.loss(x, y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    return [*losses, torch.tensor(scaler.get_scale())]


def autocast(side):
    """A forward under autocast."""
    x, _ = next(batches(side.kind, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        return [side.net.eval()(x)]


def clip_norm(side):
    """`clip_grad_norm_`."""
    optimizer = side.optimizer()
    norms = []
    for x, y in side.batches():
        optimizer.zero_grad()
        side.loss(x, y).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(side.net.parameters(), 0.5))
        optimizer.step()
    return norms


def clip_value(side):
    """`clip_grad_value_`."""
    optimizer = side.optimizer()
    for x, y in side.batches():
        optimizer.zero_grad()
        side.loss(x, y).backward()
        torch.nn.utils.clip_grad_value_(side.net.parameters(), 0.01)
        optimizer.step()
    return []


def accumulation(side):
    """Two backwards for each step."""
    optimizer = side.optimizer()
    losses = []
    for i, (x, y) in enumerate(side.batches()):
        loss = side.loss(x, y) / 2
        loss.backward()
        losses.append(loss.detach())
        if i % 2:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def data_edits(side):
    """Edits through `.data`: a unit is made anew, part of a gradient is masked."""
    optimizer = side.optimizer()
    weight = list(side.net.parameters())[-2]
    losses = []
    for x, y in side.batches():
        optimizer.zero_grad()
        loss = side.loss(x, y)
        loss.backward()
        weight.grad.data[1, 2:4] = 0
        optimizer.step()
        weight.data[3] = 0.25
        losses.append(loss.detach())
    return losses


def look_at_state(side):
    """A look at the optimizer's state in each step."""
    optimizer = side.optimizer("Adam", lr=0.01)
    seen = []

    def look(_):
        for p in side.net.parameters():
            seen.append(optimizer.state[p]["exp_avg"].clone())

    return [*train(side, optimizer, look), *seen]


def reset_state(side):
    """The optimizer's memory emptied between two tasks."""
    optimizer = side.optimizer("Adam", lr=0.01)
    losses = train(side, optimizer)
    optimizer.state.clear()
    losses += train(side, optimizer)
    optimizer.state = collections.defaultdict(dict)
    return [*losses, *train(side, optimizer)]


def save_and_load(side):
    """Network and optimizer saved, trained on, and loaded again."""
    optimizer = side.optimizer("AdamW", lr=0.01)
    train(side, optimizer)
    file = io.BytesIO()
    torch.save([side.net.state_dict(), optimizer.state_dict()], file)
    train(side, optimizer)
    file.seek(0)
    net_state, optimizer_state = torch.load(file, weights_only=True)
    side.net.load_state_dict(net_state)
    optimizer.load_state_dict(optimizer_state)
    return train(side, optimizer)


def tensor_hooks(side):
    """Hooks on parameters that change their gradients."""
    optimizer = side.optimizer()
    handles = [p.register_hook(lambda g: g * 0.5) for p in side.net.parameters()]
    losses = train(side, optimizer)
    for handle in handles:
        handle.remove()
    return [*losses, *train(side, optimizer)]


def accumulate_hooks(side):
    """Hooks that are called once a gradient is there."""
    optimizer = side.optimizer()
    norms = []
    for p in side.net.parameters():
        p.register_post_accumulate_grad_hook(lambda p: norms.append(p.grad.norm()))
    losses = train(side, optimizer, count=2)
    return [*losses, torch.stack(norms).sort().values]


def module_hooks(side):
    """Hooks on the network: before and after its forward, and its backward."""
    seen = []
    side.net.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
    side.net.register_forward_hook(lambda m, args, out: out * 2)
    side.net.register_full_backward_hook(
        lambda m, grads, outs: seen.append(outs[0].clone())
    )
    optimizer = side.optimizer()
    return [*train(side, optimizer), *seen]


def inner_hook(side):
    """A hook on a layer inside of the network."""
    *_, layer = side.net.modules()
    layer.register_forward_hook(lambda m, args, out: out * 2)
    return train(side, side.optimizer())


def step_hooks(side):
    """Hooks before and after the optimizer's step."""
    optimizer = side.optimizer()
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(0.0))
    optimizer.register_step_post_hook(lambda *_: calls.append(1.0))
    return [*train(side, optimizer), torch.tensor(calls)]


def checkpoint_reentrant(side):
    """`checkpoint` that runs the forward twice, `use_reentrant=True`."""
    return _checkpointed(side, True)


def checkpoint_hooks(side):
    """`checkpoint` that works through saved tensors, `use_reentrant=False`."""
    return _checkpointed(side, False)


def _checkpointed(side, reentrant):
    x, y = next(batches(side.kind, 1))
    x.requires_grad_()
    out = checkpoint(side.net, x, use_reentrant=reentrant)
    F.cross_entropy(out, y).backward()
    return [x.grad]


def save_on_cpu(side):
    """`save_on_cpu` around a forward."""
    x, y = next(batches(side.kind, 1))
    with torch.autograd.graph.save_on_cpu():
        loss = side.loss(x, y)
    loss.backward()
    return [loss.detach()]


def retain_graph(side):
    """Two backwards through one graph."""
    x, y = next(batches(side.kind, 1))
    loss = side.loss(x, y)
    loss.backward(retain_graph=True)
    loss.backward()
    return [loss.detach()]


def input_gradient(side):
    """The gradient of an input."""
    x, y = next(batches(side.kind, 1))
    x.requires_grad_()
    (grad,) = torch.autograd.grad(side.loss(x, y), x)
    return [grad]


def functional_call(side):
    """`torch.func.functional_call` with other parameters."""
    x, y = next(batches(side.kind, 1))
    params = {n: p.detach() * 0.5 for n, p in side.net.named_parameters()}
    out = torch.func.functional_call(side.net, params, (x,))
    return [out, side.loss(x, y).detach()]


def gradient_penalty(side):
    """A penalty on the norm of an input's gradient."""
    x, y = next(batches(side.kind, 1))
    x.requires_grad_()
    out = side.net(x)
    (g,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    (F.cross_entropy(out, y) + 10 * (g.norm() - 1) ** 2).backward()
    return [x.grad]


def jvp(side):
    """`torch.autograd.functional.jvp`."""
    x, _ = next(batches(side.kind, 1))
    out, product = torch.autograd.functional.jvp(side.net, x, torch.ones_like(x))
    return [out, product]


def hvp(side):
    """`torch.autograd.functional.hvp`."""
    x, y = next(batches(side.kind, 1))

    def loss(x):
        return F.cross_entropy(side.net(x), y)

    return list(torch.autograd.functional.hvp(loss, x, torch.ones_like(x)))


def func_grad(side):
    """`torch.func.grad` over `functional_call`."""
    x, y = next(batches(side.kind, 1))
    params = {n: p.detach() for n, p in side.net.named_parameters()}

    def loss(params):
        return F.cross_entropy(torch.func.functional_call(side.net, params, (x,)), y)

    return list(torch.func.grad(loss)(params).values())


def vmap(side):
    """`torch.vmap` over samples."""
    x, _ = next(batches(side.kind, 1))
    side.net.eval()
    return [torch.vmap(lambda one: side.net(one.unsqueeze(0)).squeeze(0))(x)]


def default_device(side):
    """A training where new tensors are on another device by default."""
    found = list(batches(side.kind, 2))
    torch.set_default_device("meta")
    try:
        optimizer = side.optimizer()
        for x, y in found:
            optimizer.zero_grad()
            side.loss(x, y).backward()
            optimizer.step()
    finally:
        torch.set_default_device(None)
    return []


def default_dtype(side):
    """A training where new tensors are float64 by default."""
    found = list(batches(side.kind, 2))
    torch.set_default_dtype(torch.float64)
    try:
        optimizer = side.optimizer("Adam", lr=0.01)
        for x, y in found:
            optimizer.zero_grad()
            side.loss(x, y).backward()
            optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    return []


def inference_mode(side):
    """A look at gradients, and a forward, under inference_mode."""
    optimizer = side.optimizer()
    seen = []
    for x, y in side.batches():
        optimizer.zero_grad()
        side.loss(x, y).backward()
        with torch.inference_mode():
            seen += [p.grad.norm().clone() for p in side.net.parameters()]
            seen.append(side.net(x).clone())
        for p in side.net.parameters():
            p.grad.mul_(0.5)
        optimizer.step()
    return [torch.tensor(s.tolist()) for s in seen]


def deep_copy(side):
    """A frozen copy that teaches, made each two steps."""
    optimizer = side.optimizer()
    losses = []
    teacher = None
    for i, (x, y) in enumerate(side.batches()):
        if i % 2 == 0:
            teacher = copy.deepcopy(side.net).requires_grad_(False).eval()
        optimizer.zero_grad()
        with torch.no_grad():
            target = teacher(x)
        out = side.net(x)
        loss = F.cross_entropy(out, y) + F.mse_loss(out, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def shallow_copy(side):
    """`copy.copy`."""
    other = copy.copy(side.net)
    x, _ = next(batches(side.kind, 1))
    with torch.no_grad():
        return [other.eval()(x)]


def pickling(side):
    """`pickle.dumps(net)`."""
    x, _ = next(batches(side.kind, 1))
    loaded = pickle.loads(pickle.dumps(side.net))
    with torch.no_grad():
        return [loaded.eval()(x)]


def data_loader(side):
    """DataLoader workers beside the training."""
    found = list(batches(side.kind, STEPS))
    dataset = TensorDataset(
        torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])
    )
    loader = DataLoader(dataset, SHAPES[side.kind][0], num_workers=2)
    optimizer = side.optimizer()
    losses = []
    for x, y in loader:
        optimizer.zero_grad()
        loss = side.loss(x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def threads(side):
    """Three threads that evaluate at once."""
    x, _ = next(batches(side.kind, 1))
    side.net.eval()
    found = [None] * 3

    def evaluate(i):
        with torch.no_grad():
            found[i] = side.net(x * (i + 1))

    workers = [threading.Thread(target=evaluate, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def compiled(side):
    """`torch.compile` with the eager backend, which has nothing to warn of."""
    model = torch.compile(side.net, backend="eager")
    optimizer = side.optimizer()
    losses = []
    for x, y in side.batches():
        optimizer.zero_grad()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = F.cross_entropy(model(x), y)
        assert not caught
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def prune(side):
    """`torch.nn.utils.prune` on the classifier."""
    from torch.nn.utils import prune as pruning

    layer = list(side.net.modules())[-1]
    pruning.l1_unstructured(layer, "weight", amount=0.5)
    x, _ = next(batches(side.kind, 1))
    with torch.no_grad():
        return [side.net.eval()(x)]


def weight_norm(side):
    """A parametrization of the classifier: weight normalisation."""
    from torch.nn.utils.parametrizations import weight_norm as normalise

    normalise(list(side.net.modules())[-1])
    x, _ = next(batches(side.kind, 1))
    with torch.no_grad():
        return [side.net.eval()(x)]


def script(side):
    """`torch.jit.trace`."""
    x, _ = next(batches(side.kind, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [torch.jit.trace(side.net.eval(), x)(x)]


def per_sample(side):
    """A gradient for each sample, one backward each (as EWC's Fisher)."""
    x, y = next(batches(side.kind, 1))
    side.net.eval()
    total = None
    for i in range(len(x)):
        side.net.zero_grad()
        side.loss(x[i : i + 1], y[i : i + 1]).backward()
        grads = torch.cat([p.grad.flatten() for p in side.net.parameters()])
        total = grads.square() if total is None else total + grads.square()
    return [total]
