"""``python -m backboned``: see ``--help``."""

import sys

from backboned.weights.cli import main

if __name__ == "__main__":
    sys.exit(main())
