"""Say whether results in the server can have the bits of results in this process."""

from __future__ import annotations

import os
import platform
import warnings

import torch

from backboned.transport.channel import Channel
from backboned.types import ServerInfo

# Variables that MKL and oneDNN read when they are loaded.
_VARIABLES = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
_WORDS = {"cpu_capability": "instruction set"}


def differences(info: ServerInfo, device: str = "cpu") -> list[str]:
    """List what bits depend on and is otherwise in the server than in this process.

    Empty for another device of the server's than a CPU: that a network there has other
    bits is no surprise.
    """
    found = next((d for d in info.devices if d.name == device == "cpu"), None)
    if found is None:
        return []
    there = {
        "LibTorch": info.torch_version.partition("+")[0],
        "threads": str(found.threads),
        "processor": found.description,
        **info.numerics,
    }
    here = {
        "LibTorch": torch.__version__.partition("+")[0],
        "threads": str(torch.get_num_threads()),
        "processor": _processor(),
        **_numerics(),
    }
    names = [name for name in here if name in there]
    if info.numerics:  # An older server does not say.
        names += [name for name in _VARIABLES if (name in here) != (name in there)]
    return [
        f"{_WORDS.get(name, name)} {there.get(name, 'unset')} there, "
        f"{here.get(name, 'unset')} here"
        for name in names
        if there.get(name) != here.get(name)
    ]


def warn_once(channel: Channel, info: ServerInfo, device: str) -> None:
    """Warn of the differences, once for each connection.

    Warns
    -----
    RuntimeWarning
        That names each difference.
    """
    if channel.compared:
        return
    channel.compared = True
    found = differences(info, device)
    if found:
        warnings.warn(
            f"results of the server at {channel.target} need not have the last bits of "
            f"those of this process: {'; '.join(found)}",
            RuntimeWarning,
            stacklevel=5,
        )


def _numerics() -> dict[str, str]:
    """Say what a server says of itself."""
    mkldnn = torch.backends.mkldnn
    said = {
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "mkldnn": "on" if getattr(mkldnn, "enabled", True) else "off",
    }
    if hasattr(torch.backends, "cpu"):
        said["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    said.update({v: os.environ[v] for v in _VARIABLES if v in os.environ})
    return said


def _processor() -> str:
    """Name the processor as a server does."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name") and ": " in line:
                    return line.partition(": ")[2].rstrip("\n")
    except OSError:
        return platform.processor() or "unknown processor"
    return "unknown processor"
