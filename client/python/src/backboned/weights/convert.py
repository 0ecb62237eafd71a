"""Converts PyTorch's state dicts to weights files of Mammoth's names. Needs torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from backboned.errors import InvalidArgument
from backboned.nn.watch import as_array
from backboned.weights.files import RawTensor

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = re.compile(r"(module\.|net\.)*")  # Of DataParallel; of Mammoth's models.
_UNPICKLABLE = "GLOBAL"  # In what torch.load says of anything that is no tensor.


class Family(NamedTuple):
    """A family of architectures, and the names that it is converted from.

    `head` are the beginnings of the classifier's keys: the source's, and Mammoth's.
    """

    description: str
    marks: tuple[str, ...] = ()
    head: tuple[str, str] = ("", "")

    def rename(self, key: str, bottleneck: bool) -> str:
        """Give Mammoth's name of a key."""
        theirs, ours = self.head
        if theirs and key.startswith(theirs) and not key.startswith(ours):
            return ours + key[len(theirs) :]
        if self.marks == _RESNET and not bottleneck:
            return key.replace(".downsample.", ".shortcut.")
        return key


class Converted(NamedTuple):
    """Tensors by Mammoth's names, in the source's order; `renamed` says whence."""

    family: str
    tensors: dict[str, torch.Tensor]
    renamed: dict[str, str]
    dropped: tuple[str, ...]


_RESNET = ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight")
FAMILIES = {
    "vit": Family(
        "timm's VisionTransformer",
        ("cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
        ("head.", "head.heads.0."),
    ),
    "resnet": Family("torchvision's or timm's ResNet", _RESNET, ("fc.", "classifier.")),
    "efficientnet": Family(
        "efficientnet_pytorch's EfficientNet",
        ("_conv_stem.weight", "_blocks.0._bn1.weight"),
        ("_fc.", "classifier."),
    ),
    "mammoth": Family("Mammoth's own"),
}
_CLASSIFIERS = ("classifier.", "head.heads.")


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Load a state dict, or a checkpoint around one, without running its code.

    Raises InvalidArgument if the file holds anything else. Raises OSError if it cannot
    be read.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Bytes that are none of torch.save's raise anything.
        if _UNPICKLABLE in str(error):
            raise InvalidArgument(
                f"{path} holds more than tensors, and is not loaded, since that could "
                "run its code; save model.state_dict() alone"
            ) from None
        raise InvalidArgument(f"{path} is no file of torch.save") from None
    found = loaded if isinstance(loaded, Mapping) else {}
    inner = (found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping))
    state = next(inner, found)
    if not state:
        raise InvalidArgument(f"{path} holds no state dict")
    for key, value in state.items():
        if not torch.is_tensor(value):
            raise InvalidArgument(f"{path} holds no state dict: {key} is no tensor")
    return {str(key): value for key, value in state.items()}


def _recognise(state: Mapping[str, torch.Tensor]) -> str:
    """Say of which family the keys are."""
    for name, family in FAMILIES.items():
        if family.marks and all(mark in state for mark in family.marks):
            return name
    hint = ""
    if "features.0.0.weight" in state or "conv_stem.weight" in state:
        hint = (
            "; these look like torchvision's or timm's EfficientNet, whose layers are "
            "not those of efficientnet_pytorch, which Mammoth uses"
        )
    known = "; ".join(f"{n}: {f.description}" for n, f in FAMILIES.items())
    first = ", ".join([*state][:10])
    raise InvalidArgument(
        f"the keys are of no known source (they begin {first}){hint}. "
        f"Known: {known}. --arch says which, and `mammoth` keeps the names"
    )


def convert(
    state: Mapping[str, torch.Tensor], arch: str = "auto", trunk: bool = False
) -> Converted:
    """Give the tensors Mammoth's names.

    - `state`: a state dict; ``module.`` and ``net.`` before all keys are taken off.
    - `arch`: a key of `FAMILIES`, or ``auto``.
    - `trunk`: leave the classifier out.

    Raises InvalidArgument if the source is not known, or two keys become one.
    """
    prefix = _PREFIXES.match(os.path.commonprefix([*state]))
    begin = prefix.end() if prefix else 0
    plain = {key[begin:]: tensor for key, tensor in state.items()}
    name = _recognise(plain) if arch == "auto" else arch
    bottleneck = any(".conv3." in key for key in plain)
    targets = {key: FAMILIES[name].rename(key, bottleneck) for key in plain}
    heads = {  # A tensor may have further keys.
        plain[key].data_ptr()
        for key, target in targets.items()
        if target.startswith(_CLASSIFIERS)
    }
    dropped = [key for key in plain if trunk and plain[key].data_ptr() in heads]
    for key in dropped:
        del targets[key]
    tensors: dict[str, torch.Tensor] = {}
    for key, target in targets.items():
        if target in tensors:
            raise InvalidArgument(f"two keys become {target!r}; one is {key!r}")
        tensors[target] = plain[key]
    renamed = {key: target for key, target in targets.items() if target != key}
    return Converted(name, tensors, renamed, tuple(dropped))


def raw(name: str, tensor: torch.Tensor) -> RawTensor:
    """Give a tensor's bytes.

    Raises InvalidArgument if its element type is none of a weights file's.
    """
    try:
        return RawTensor.of(as_array(tensor.cpu()))
    except (KeyError, TypeError):  # The latter is NumPy's, which has fewer types.
        raise InvalidArgument(
            f"{name!r} is a tensor of {tensor.dtype}, {tensor.layout}"
        ) from None
