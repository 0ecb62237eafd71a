"""Shares what the parts of a check on a GPU need: results, servers, networks, times.

A dry run has servers on the fake device, and torch on the CPU with the functions of
CUDA doing nothing.
"""

import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, Optional
from unittest.mock import MagicMock

import backboned
import numpy as np
import torch
from backboned.instance import Instance
from reference_models import ReferenceMlp, ReferenceResNet18, seeded
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
DRY = bool(os.environ.get("GPU_CHECK_DRY_RUN"))
THREADS = 1 if DRY else 4
CARD = torch.device("cpu" if DRY else "cuda")
"""Where torch computes in this process."""

torch.set_num_threads(THREADS)
if DRY:
    for function in ("synchronize", "Stream", "stream", "current_stream"):
        setattr(torch.cuda, function, MagicMock())
    torch.cuda.CUDAGraph = torch.cuda.graph = MagicMock()
    torch.Tensor.pin_memory = lambda self: self

# Of networks: a dry run's are small.
FILTERS = 4 if DRY else 64
VIT = {"img_size": 224, "embed_dim": 768, "depth": 12, "num_heads": 12}
if DRY:
    VIT = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}
random = np.random.default_rng(0)


class TimeUpError(KeyboardInterrupt):
    """An item took longer than it may. Ends pytest, too."""


class Results:
    """Runs the items of a part one by one, and keeps what each found in a file.

    Parameters
    ----------
    path : Path
        The file, which is written anew with each finding.
    seconds : float
        What all items together may take.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._end = time.monotonic() + seconds
        self._items: dict[str, Any] = {}
        self._item: dict[str, Any] = {}

    def row(self, case: str, holds: Optional[bool] = None, **figures: Any) -> None:
        """Keep figures; `holds` says whether what is promised was so."""
        self._item["rows"].append({"case": case, "holds": holds, **figures})
        print(f"    {case}", "FAILED" if holds is False else "", figures, flush=True)
        self._save()

    def run(self, items: dict[str, Callable[["Results"], None]], most: float) -> None:
        """Run items, each for `most` seconds at most."""
        self._items = {name: {"state": "not reached", "rows": []} for name in items}
        for name, item in items.items():
            self._item = self._items[name]
            print(f"  {name}", flush=True)
            begin = time.monotonic()
            limit = min(most, self._end - begin)
            if limit > 2:
                self._item["state"] = "unfinished"
                self._save()
                self._run_one(item, limit)
            self._item["seconds"] = round(time.monotonic() - begin, 1)
            self._save()

    def _run_one(self, item: Callable[["Results"], None], limit: float) -> None:
        try:
            signal.signal(signal.SIGALRM, _time_is_up)
            signal.setitimer(signal.ITIMER_REAL, limit)
            item(self)
            held = all(row["holds"] is not False for row in self._item["rows"])
            self._item["state"] = "done" if held else "failed"
        except TimeUpError:
            self._item["state"] = f"stopped after {limit:.0f} s"
        except Exception as error:
            self._item["state"] = "failed"
            self._item["error"] = f"{type(error).__name__}: {error}"[:500]
            traceback.print_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"dry_run": DRY, "items": self._items}, indent=1))
        part.rename(self._path)


def _time_is_up(*_: Any) -> None:
    raise TimeUpError


def start(*options: str, device: str = "cuda") -> backboned.Server:
    """Start a server on the GPU."""
    return backboned.local_server(
        device=device, threads=THREADS, options=options, start_timeout=90
    )


_shared: list[backboned.Server] = []


def shared() -> backboned.Server:
    """Give the server of all items; a new one if it has ended."""
    try:
        _shared[-1].info(timeout=10)
    except (IndexError, backboned.BackbonedError):
        _shared.append(start())
    return _shared[-1]


def resnet(server: Optional[backboned.Server] = None, **options: Any) -> Instance:
    """Make a ResNet18 for images of 32x32, of 45 MB; `resnet_here` is its equal."""
    given = {"num_classes": 10, "num_filters": FILTERS, "seed": 0, **options}
    return (server or shared()).create(architecture="resnet18", module=False, **given)


def resnet_here() -> nn.Module:
    return seeded(lambda: ReferenceResNet18(10, FILTERS), 0).to(CARD)


def perceptron(server: Optional[backboned.Server] = None) -> Instance:
    """Make a perceptron of two hidden layers; `perceptron_here` is its equal."""
    return (server or shared()).create("seq-mnist", seed=0, module=False)


def perceptron_here() -> nn.Module:
    return seeded(ReferenceMlp, 0).to(CARD)


def vit(**options: Any) -> Instance:
    """Make a vision transformer, ViT-B/16; `VitHere` is its equal."""
    given = {"architecture": "vit", "num_classes": 10, "random_init": True, **VIT}
    return shared().create(module=False, seed=0, **given, **options)


class VitHere(nn.Module):
    """An instance's vision transformer in this process."""

    def __init__(self, net: Instance) -> None:
        super().__init__()
        flat = torch.from_numpy(net.get_params())
        self.names = [parameter.name for parameter in net.layout.parameters]
        values = [
            flat[p.offset : p.offset + p.size].view(p.shape).to(CARD).clone()
            for p in net.layout.parameters
        ]
        self.values = nn.ParameterList(values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = dict(zip(self.names, self.values))

        def linear(name: str, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

        def norm(name: str, x: torch.Tensor) -> torch.Tensor:
            weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
            return F.layer_norm(x, weight.shape, weight, bias, 1e-6)

        weight, bias = p["patch_embed.proj.weight"], p["patch_embed.proj.bias"]
        rows = F.conv2d(x, weight, bias, stride=16).flatten(2).transpose(1, 2)
        x = torch.cat([p["cls_token"].expand(len(x), -1, -1), rows], 1)
        x = x + p["pos_embed"]
        for block in (f"blocks.{i}" for i in range(VIT["depth"])):
            qkv = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x))
            qkv = qkv.reshape(*x.shape[:2], 3, VIT["num_heads"], -1)
            heads = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
            heads = heads.transpose(1, 2).reshape(x.shape)
            x = x + linear(f"{block}.attn.proj", heads)
            hidden = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
            x = x + linear(f"{block}.mlp.fc2", hidden)
        head = next(n for n in self.names if n.startswith("head"))
        return linear(head.removesuffix(".weight"), norm("norm", x)[:, 0])


def images(count: int, side: int = 32) -> np.ndarray:
    return random.standard_normal((count, 3, side, side), np.float32)


def here(x: np.ndarray) -> torch.Tensor:
    """Bring an array to the card."""
    return torch.from_numpy(x).to(CARD)


def evaluated(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """Run a forward in evaluation mode, from an array to an array."""
    with torch.no_grad():
        return module.eval()(here(x)).cpu().numpy()


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def apart(ours: Any, theirs: Any) -> dict[str, Any]:
    """Say whether two arrays are equal to the bit, and how far they are apart."""
    a, b = (torch.as_tensor(x).cpu().double().flatten() for x in (ours, theirs))
    distance = (a - b).norm() / b.norm()
    return {"equal": bool(torch.equal(a, b)), "apart": float(distance)}


def spread(values: Iterable[float]) -> list[float]:
    listed = list(values)
    return [median(listed), min(listed), max(listed)]


def compared(**sides: Callable[[], Any]) -> dict[str, list[float]]:
    """Time calls of several sides in turn: ms of a call, and by the first side's."""
    rounds, seconds, warm = (2, 0.05, 1) if DRY else (5, 0.4, 5)
    found: dict[str, list[float]] = {side: [] for side in sides}
    for call in sides.values():
        for _ in range(warm):
            call()
    for _ in range(rounds):
        for side, call in sides.items():
            torch.cuda.synchronize()
            count, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < seconds:
                call()
                count += 1
            torch.cuda.synchronize()
            found[side].append((time.perf_counter() - begin) / count * 1e3)
    first, *others = found
    figures = {f"{side} ms": spread(ms) for side, ms in found.items()}
    for other in others:
        ratios = (b / a for a, b in zip(found[first], found[other]))
        figures[f"{other} / {first}"] = spread(ratios)
    return figures
