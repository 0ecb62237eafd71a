"""The version, which is the client's: the drop-in uses its private modules."""

import re
from pathlib import Path

from setuptools import setup

_VERSION = Path(__file__).parent / "../python/src/backboned/version.py"
_version = re.findall('= "(.+)"', _VERSION.read_text())[0]

setup(version=_version, install_requires=[f"backboned[torch]=={_version}"])
