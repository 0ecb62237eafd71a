"""Runs of backbonectl against a server."""

import json
import os
import subprocess


class Control:
    """Runs the program for a server; `target` is what BACKBONED_SERVER has."""

    def __init__(self, program, target, folder):
        self.program, self.folder = program, folder
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("BACKBONED_")
        }
        self.environment.update(BACKBONED_SERVER=target, HOME=str(folder))

    def command(self, *arguments):
        return [str(self.program), *map(str, arguments)]

    def run(self, *arguments, **options):
        """Run it; give what it was, whatever the end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=self.folder,
            **{"capture_output": True, "text": True, "timeout": 60, **options},
        )

    def __call__(self, *arguments):
        """Run it, which must work; give what it printed."""
        ended = self.run(*arguments)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    def json(self, *arguments):
        """Run it with --json; give what it printed."""
        return json.loads(self(*arguments, "--json"))

    def refuses(self, code, *arguments):
        """Run it, which must end with a code and one sentence; give the sentence."""
        ended = self.run(*arguments)
        assert (ended.returncode, ended.stdout) == (code, ""), ended
        (line,) = ended.stderr.splitlines()
        assert line.startswith("backbonectl: "), line
        return line.removeprefix("backbonectl: ")
