"""The extras, of which two name the server of the same version."""

import re
from pathlib import Path

from setuptools import setup

_VERSION = Path(__file__).parent / "src/backboned/version.py"
_SERVER = "backboned-server==" + re.findall('= "(.+)"', _VERSION.read_text())[0]

setup(
    extras_require={
        "server": [_SERVER],
        "torch": ["torch>=2.1"],
        "progress": ["tqdm"],
        "demo": [_SERVER, "torch>=2.1", "tqdm", "matplotlib"],
    }
)
