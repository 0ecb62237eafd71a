"""Runs the server: ``python -m backboned_server [OPTION]...``."""

from backboned_server import main

main()
