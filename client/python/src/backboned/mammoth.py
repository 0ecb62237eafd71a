"""The drop-in for Mammoth, under the name that it had in this package.

>>> import backboned.mammoth
>>> import main
>>> main.main()

It is the package `backboned_mammoth` of a distribution of its own, `backboned-mammoth`.
"""

from __future__ import annotations

import sys

try:
    from backboned_mammoth import *  # type: ignore  # noqa: F403
except ModuleNotFoundError as error:
    if error.name != "backboned_mammoth":
        raise
    _message = (
        "backboned.mammoth is the package backboned_mammoth, which is not installed: "
        "run pip install on the folder client/mammoth of Backboned's repository, or on "
        "the wheel backboned_mammoth-*.whl of its release"
    )
    if __name__ == "__main__":
        sys.exit(_message)
    raise ModuleNotFoundError(_message, name=error.name) from None

if __name__ == "__main__":
    from backboned_mammoth.__main__ import main  # type: ignore

    main(sys.argv[1:])
