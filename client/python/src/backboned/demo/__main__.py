"""``python -m backboned.demo``: see ``--help``."""

import os
import sys

# Before torch is loaded. Trainer and server share the processor: a team of threads
# that spins while it waits for the other side takes the time away from it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    from backboned.demo.cli import main
except ImportError as error:
    sys.exit(f"demo: it needs {error.name}: pip install 'backboned[demo]'")

if __name__ == "__main__":
    sys.exit(main())
