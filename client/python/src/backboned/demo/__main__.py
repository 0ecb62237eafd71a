"""``python -m backboned.demo``: see ``--help``."""

import sys

# Before torch is loaded: importing backboned has set how long OpenMP's threads spin.
try:
    from backboned.demo.cli import main
except ImportError as error:
    sys.exit(f"demo: it needs {error.name}: pip install 'backboned[demo]'")

if __name__ == "__main__":
    sys.exit(main())
