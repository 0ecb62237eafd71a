"""Tests what works with a remote network: the table of docs/remote-networks.md.

Each row runs on a network in a server and on its equal in this process. A cell says
what came of it: equal to the bit and how much travelled, or refused with words. The
table in the docs has these very lines; `WRITE_TABLE=1` writes them anew.
"""

import inspect
import os
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import pytorch_rows as rows
import torch
from backboned import optim
from hosted_pairs import SHAPES, assert_same, assert_same_networks, make_pair
from torch.optim import lr_scheduler

PAGE = Path(__file__).resolve().parents[2] / "docs" / "remote-networks.md"
BEGIN = "<!-- The table that tests/python/test_pytorch_table.py makes. -->"
WRITES = os.environ.get("WRITE_TABLE") == "1"

KINDS = ["mlp", "resnet"]

OPTIMIZERS = sorted(
    name
    for name, one in vars(torch.optim).items()
    if inspect.isclass(one) and one is not torch.optim.Optimizer
)

PLAIN = {
    "a weight decay for each step": rows.weight_decay_schedule,
    "parameter groups, one added later": rows.parameter_groups,
    "groups by the type of layers": rows.groups_by_type,
    "`net.apply(init)` by the type of layers": rows.initialise_by_type,
    "freezing by the type of layers": rows.freeze_by_type,
    "`zero_grad` of a wrapper module": rows.wrapper_zero_grad,
    "a layer of one's own behind the features": rows.own_head,
    "gradient accumulation": rows.accumulation,
    "`clip_grad_norm_`": rows.clip_norm,
    "`clip_grad_value_`": rows.clip_value,
    "edits through `.data`": rows.data_edits,
    "a look at `opt.state` in each step": rows.look_at_state,
    "`opt.state` emptied between tasks": rows.reset_state,
    "network and optimizer saved and loaded": rows.save_and_load,
    "EMA: `AveragedModel`": rows.ema,
    "SWA: `AveragedModel`, `update_bn`": rows.swa,
    "SAM": rows.sam,
    "`GradScaler`": rows.grad_scaler,
    "`autocast`": rows.autocast,
    "hooks of parameters: `register_hook`": rows.tensor_hooks,
    "`register_post_accumulate_grad_hook`": rows.accumulate_hooks,
    "hooks of the network": rows.module_hooks,
    "hooks of inner modules": rows.inner_hook,
    "hooks of the optimizer": rows.step_hooks,
    "`checkpoint(use_reentrant=True)`": rows.checkpoint_reentrant,
    "`checkpoint(use_reentrant=False)`": rows.checkpoint_hooks,
    "`save_on_cpu`": rows.save_on_cpu,
    "`retain_graph=True`": rows.retain_graph,
    "gradients of inputs": rows.input_gradient,
    "a gradient for each sample": rows.per_sample,
    "`functional_call`": rows.functional_call,
    "gradients of gradients: a penalty": rows.gradient_penalty,
    "`autograd.functional.jvp`": rows.jvp,
    "`autograd.functional.hvp`": rows.hvp,
    "`torch.func.grad`": rows.func_grad,
    "`torch.vmap`": rows.vmap,
    "`set_default_device`": rows.default_device,
    "`set_default_dtype`": rows.default_dtype,
    "`inference_mode`": rows.inference_mode,
    "`copy.deepcopy`": rows.deep_copy,
    "`copy.copy`": rows.shallow_copy,
    "`pickle.dumps(net)`": rows.pickling,
    "DataLoader workers": rows.data_loader,
    "threads that evaluate": rows.threads,
    '`torch.compile(backend="eager")`': rows.compiled,
    "`nn.utils.prune`": rows.prune,
    "`nn.utils.parametrizations`": rows.weight_norm,
    "`torch.jit.trace`": rows.script,
}

ROWS = {
    **{f"`torch.optim.{name}`": rows.optimizer_row(name) for name in OPTIMIZERS},
    **{f"`{name}`": rows.scheduler_row(make) for name, make in rows.SCHEDULERS.items()},
    **PLAIN,
}

CLOSE = {"`autocast`": "computed in float32"}
"""Rows that are equal to the precision of bfloat16 only, and why."""


class Outcome(NamedTuple):
    """The outcome of a row: tensors, or the error that was raised."""

    tensors: list[torch.Tensor]
    error: Exception | None


def outcome(row, side):
    try:
        return Outcome([torch.as_tensor(t).detach() for t in row(side)], None)
    except rows.NotHostedError:
        raise
    except Exception as error:
        return Outcome([], error)


def sentence(error):
    """Give an error's first sentence as the table shows it, without ids."""
    words = re.sub(r' "[0-9a-f]{32}"', "", " ".join(str(error).split()))
    words = re.split(r"(?<=[a-z)])[.;:] ", words)[0].replace("|", "/")
    return textwrap.shorten(words, 110, placeholder=" ...")


def moved(side, network_bytes):
    """Give how often the parameters' bytes travelled in a step, beside the images."""
    after_first = side.traffic[1:]
    if len(after_first) < 2:
        return ""
    images = torch.Size(SHAPES[side.kind]).numel() * 4
    steps = len(after_first) - 1
    total = after_first[-1] - after_first[0]
    bytes_a_step = (total.sent_bytes + total.received_bytes) / steps
    return f", {round((bytes_a_step - images) / network_bytes)}"


def cell(name, pair, kind, hosted):
    """Run a row on both networks, and say what came of it."""
    net, local = pair
    ours, theirs = (rows.Side(one, kind, hosted and one is net) for one in pair)
    try:
        found = outcome(ROWS[name], ours)
    except rows.NotHostedError:
        return "mirrored only"
    expected = outcome(ROWS[name], theirs)
    if found.error is not None:
        kind_of_error = type(found.error).__name__
        if type(found.error) is type(expected.error):
            return f"as in torch: `{kind_of_error}`"
        return f"refused: `{kind_of_error}`: {sentence(found.error)}"
    assert expected.error is None, f"only torch refuses: {expected.error}"
    assert len(found.tensors) == len(expected.tensors)
    for one, other in zip(found.tensors, expected.tensors):
        if name in CLOSE:
            torch.testing.assert_close(one.float(), other.float(), rtol=0.05, atol=0.05)
        else:
            assert_same(one, other)
    if name in CLOSE:
        return CLOSE[name]
    assert_same_networks(net, local)
    network_bytes = 4 * sum(p.numel() for p in local.parameters())
    return f"equal{moved(ours, network_bytes)}"


def run(server, name):
    """Give a row's line of the table."""
    cells = []
    for mode in ("mirrored", "hosted"):
        found = []
        for kind in KINDS:
            pair = make_pair(server, kind)
            if mode == "hosted":
                optim.SGD(pair[0], lr=0.05)
            found.append(cell(name, pair, kind, mode == "hosted"))
        cells.append(common(found))
    return f"| {name} | {' | '.join(cells)} |"


def common(found):
    """Give the cell of both networks; torch may refuse for one what we do for both."""
    refused = [one for one in found if one.startswith("refused")]
    if refused:
        assert all(one.startswith(("refused", "as in torch")) for one in found), found
        return refused[-1]
    assert len({one.split(",")[0] for one in found}) == 1, found
    return found[-1]


def lines_of_the_page():
    """Give the lines of the table in the docs."""
    text = PAGE.read_text()
    assert BEGIN in text
    table = text.split(BEGIN)[1].lstrip("\n").split("\n\n")[0]
    return table.splitlines()[2:]


@pytest.mark.parametrize("name", ROWS)
def test_the_table_says_what_comes_of_it(server, name):
    line = run(server, name)
    if WRITES:
        write(name, line)
    assert line in lines_of_the_page()


def write(name, line):
    """Put a line into the table, in the order of the rows."""
    before, rest = PAGE.read_text().split(BEGIN)
    table, _, after = rest.lstrip("\n").partition("\n\n")
    head, rule, *lines = table.splitlines()
    by_name = {one.split("|")[1].strip(): one for one in lines}
    by_name[name] = line
    ordered = [by_name[one] for one in ROWS if one in by_name]
    table = "\n".join([head, rule, *ordered])
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{after}")


def test_the_table_has_every_row():
    names = [line.split("|")[1].strip() for line in lines_of_the_page()]
    assert names == list(ROWS)


def test_the_rows_have_every_scheduler_of_torch():
    ours = {name for name in rows.SCHEDULERS if name != "SWALR"}
    theirs = {name for name in lr_scheduler.__all__ if name not in ("LRScheduler",)}
    assert ours == theirs
