"""Converts PyTorch's state dicts to weights files of Mammoth's names. Needs torch."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from backboned.errors import InvalidArgument
from backboned.transport.tensors import as_bytes
from backboned.weights.files import RawTensor

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "net.")  # Of DataParallel, and of Mammoth's models.
_LISTED = 10
# What torch.load raises for bytes that are none of torch.save's; and the words with
# which it refuses what they name.
_BROKEN = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
_UNPICKLABLE = "GLOBAL"
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


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
    except OSError:
        raise
    except _BROKEN as error:
        if isinstance(error, pickle.UnpicklingError) and _UNPICKLABLE in str(error):
            raise InvalidArgument(
                f"{path} holds more than tensors, and is not loaded, since that could "
                "run its code; save model.state_dict() alone"
            ) from None
        raise InvalidArgument(f"{path} is no file of torch.save") from None
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise InvalidArgument(f"{path} holds no state dict")
    others = [str(key) for key, v in loaded.items() if not torch.is_tensor(v)]
    if others:
        raise InvalidArgument(
            f"{path} holds no state dict: {_some(others)} "
            f"{'is no tensor' if len(others) == 1 else 'are no tensors'}"
        )
    return {str(key): value for key, value in loaded.items()}


def recognise(state: Mapping[str, Any]) -> str:
    """Say of which family the keys are.

    Raises InvalidArgument if it is none.
    """
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
    raise InvalidArgument(
        f"the keys are of no known source (they begin {_some(list(state))}){hint}. "
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
    plain = _without_prefixes(state)
    name = recognise(plain) if arch == "auto" else arch
    family = FAMILIES[name]
    bottleneck = any(".conv3." in key for key in plain)
    heads = {  # A tensor may have further keys.
        tensor.data_ptr()
        for key, tensor in plain.items()
        if family.rename(key, bottleneck).startswith(_CLASSIFIERS)
    }
    tensors: dict[str, torch.Tensor] = {}
    renamed: dict[str, str] = {}
    dropped = []
    for key, tensor in plain.items():
        target = family.rename(key, bottleneck)
        if trunk and tensor.data_ptr() in heads:
            dropped.append(key)
            continue
        if target in tensors:
            raise InvalidArgument(f"two keys become {target!r}; one is {key!r}")
        tensors[target] = tensor
        if target != key:
            renamed[key] = target
    return Converted(name, tensors, renamed, tuple(dropped))


def raw(name: str, tensor: torch.Tensor) -> RawTensor:
    """Give a tensor's bytes.

    Raises InvalidArgument if its element type is none of a weights file's.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None or tensor.layout != torch.strided:
        raise InvalidArgument(
            f"{name!r} is a tensor of {tensor.dtype}, {tensor.layout}"
        )
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return RawTensor(
        dtype, tuple(tensor.shape), as_bytes(flat.view(torch.uint8).numpy())
    )


def _without_prefixes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    plain = dict(state)
    while prefix := next((p for p in _PREFIXES if _all_begin(plain, p)), ""):
        plain = {key[len(prefix) :]: tensor for key, tensor in plain.items()}
    return plain


def _all_begin(state: Mapping[str, Any], prefix: str) -> bool:
    return bool(state) and all(key.startswith(prefix) for key in state)


def _some(keys: list[str]) -> str:
    listed = ", ".join(keys[:_LISTED])
    return listed + (f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")
