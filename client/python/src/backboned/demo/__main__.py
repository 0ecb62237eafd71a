"""``python -m backboned.demo``: see ``--help``."""

import os
import sys

# Before torch is loaded. Trainer and server share the processor: a team of threads
# that spins while it waits for the other side takes the time away from it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from backboned.demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
