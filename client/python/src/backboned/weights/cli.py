"""The commands of ``python -m backboned``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import backboned
from backboned.weights.files import name_of, save, write

_ARCHS = ("auto", "vit", "resnet", "efficientnet", "mammoth")
_SHOWN_RENAMES = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit status.

    That is 0, 1 on failure, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        return 0
    except KeyboardInterrupt:
        return 130
    except (backboned.BackbonedError, OSError, ImportError) as error:
        print(f"backboned: {getattr(error, 'message', error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backboned",
        description="Makes weights files (safetensors) for a server's --weights-dir.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser(
        "save",
        help="write an instance's parameters and buffers to a file",
        description="Writes an instance's parameters and buffers, of one version, to "
        "a file.",
    )
    command.add_argument("server", metavar="SERVER", help="unix:/path or host:port")
    command.add_argument("instance", metavar="INSTANCE", help="NAME or OWNER/NAME")
    command.add_argument("out", metavar="OUT", type=Path, help="NAME.safetensors")
    command.set_defaults(run=_save)
    command = commands.add_parser(
        "convert",
        help="convert a state dict of PyTorch (.pt, .pth)",
        description="Converts a state dict of PyTorch (.pt, .pth) to a weights file "
        "of Mammoth's names. Takes ResNets of torchvision and timm, "
        "VisionTransformers of timm, EfficientNets of efficientnet_pytorch (not "
        "torchvision's or timm's), and Mammoth's own networks. Runs no code of the "
        "file. Needs torch.",
    )
    command.add_argument("source", metavar="IN", type=Path, help="of torch.save")
    command.add_argument("out", metavar="OUT", type=Path, help="NAME.safetensors")
    command.add_argument(
        "--arch",
        choices=_ARCHS,
        default="auto",
        help="whose names IN has; mammoth: keep them; default: auto, by the keys",
    )
    command.add_argument(
        "--trunk",
        action="store_true",
        help="leave the classifier out, to load with partial=True into an instance "
        "of another number of classes",
    )
    command.set_defaults(run=_convert)
    return parser


def _save(options: argparse.Namespace) -> None:
    name_of(options.out)
    progress = importlib.util.find_spec("tqdm") is not None and sys.stderr.isatty()
    with backboned.connect(options.server, label="save", progress=progress) as server:
        net = server.instance(options.instance, module=False)
        print(
            f"saving {net.owner}/{net.name} [{net.architecture}], "
            f"{net.layout.elements:,} parameters",
            flush=True,
        )
        _say_written(options.out, save(net, options.out))


def _convert(options: argparse.Namespace) -> None:
    name_of(options.out)
    if importlib.util.find_spec("torch") is None:
        raise ImportError("convert needs torch: pip install 'backboned[torch]'")
    from backboned.weights.convert import FAMILIES, convert, load_state_dict, raw

    print(f"reading {options.source}", flush=True)
    state = load_state_dict(options.source)
    result = convert(state, options.arch, options.trunk)
    elements = sum(tensor.numel() for tensor in result.tensors.values())
    print(
        f"{FAMILIES[result.family].description} names: {len(result.tensors)} tensors, "
        f"{elements:,} elements"
    )
    for key, target in list(result.renamed.items())[:_SHOWN_RENAMES]:
        print(f"  {key} -> {target}")
    if len(result.renamed) > _SHOWN_RENAMES:
        print(f"  and {len(result.renamed) - _SHOWN_RENAMES} more renamed")
    if result.dropped:
        print(f"  left out: {', '.join(result.dropped)}")
    tensors = {name: raw(name, tensor) for name, tensor in result.tensors.items()}
    _say_written(options.out, write(options.out, tensors))


def _say_written(path: Path, sha256: str) -> None:
    print(f"wrote {path} ({path.stat().st_size:,} bytes), SHA-256 {sha256}")
    print(f"as weights: {name_of(path)!r}, once it is in the server's --weights-dir")
