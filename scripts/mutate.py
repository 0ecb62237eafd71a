#!/usr/bin/env python3
"""Seeds small faults into modules, and counts those that their tests find.

A fault (a mutant) changes or leaves out an operator, a number, a condition or a
statement. One copy of the sources holds all mutants, each behind a look at
BACKBONED_MUTANT, so that a mutant costs a run of the tests and no compilation. A mutant
dies when a test fails or takes far too long. tests/mutants.txt names the mutants that
change nothing that is promised, each with the reason.

Prints the survivors, and each module's share of mutants that died: of all, and of those
that are not named. The second must be at least 0.9. results/mutation_*.json keep each
mutant's fate; a run that is interrupted goes on from there. Needs scripts/setup, and
scripts/build for the modules of the Python client.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys

from mutation import cpp, python, report

# Bytes of address space of a test, since a mutant may allocate without end.
MEMORY = 16 << 30
MODULES = {name: kind for kind in (cpp, python) for name in kind.MODULES}


def main() -> int:
    """Run the mutants; 1 if a module's score is below the goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time")
    parser.add_argument(
        "--again", action="store_true", help="only those that survived the last run"
    )
    options = parser.parse_args()
    chosen = options.modules or list(MODULES)
    for module in chosen:
        if module not in MODULES:
            parser.error(f"there is no module {module}; there are {', '.join(MODULES)}")
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, most))
    good = True
    for language in (cpp, python):
        if modules := [name for name in chosen if name in language.MODULES]:
            good &= report(*language.run(modules, options.jobs, options.again))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
