"""Mammoth's backbones in a server, with Mammoth as it is.

>>> import backboned_mammoth
>>> import main
>>> main.main()

Importing this module puts the server behind every backbone that Mammoth's registry
builds, whichever of the two is imported first. The environment says which server:
``BACKBONED_SERVER``, by default one of one's own. `docs/mammoth.md` has the rest.
"""

from backboned_mammoth.registry import disengage, engage
from backboned_mammoth.run import REQUIRE_REMOTE, RUN, SERVER, RanHere, SeamError

__all__ = [
    "REQUIRE_REMOTE",
    "SERVER",
    "STATS",
    "RanHere",
    "SeamError",
    "disengage",
    "engage",
]


def STATS() -> dict[str, int]:  # noqa: N802
    """Say how much this process has computed in the server so far."""
    return dict(RUN.counts)


engage()
