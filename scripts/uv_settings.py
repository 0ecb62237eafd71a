"""Reads `pip config list`; prints the same settings for uv, one VARIABLE=VALUE a line.

At a setting that uv has no name for, prints that one alone, and ends with 1.
"""

import ast
import os
import sys
from collections.abc import Iterable

_SEPARATORS = {"UV_INDEX": " ", "UV_INSECURE_HOST": " ", "UV_FIND_LINKS": ","}
_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": "ALL_PROXY",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
}
# They change how pip works, not where from.
_IGNORED = {
    "break-system-packages",
    "cache-dir",
    "debug",
    "default-timeout",
    "disable-pip-version-check",
    "no-cache-dir",
    "no-color",
    "no-input",
    "no-warn-script-location",
    "prefer-binary",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "retries",
    "root-user-action",
    "timeout",
    "verbose",
}


# A later one outranks those before it.
_SECTIONS = ("global", "install", ":env:")


class UnknownSettingError(Exception):
    """A setting that uv has no name for."""


def _rank(line: str) -> int:
    section = line.partition("=")[0].rpartition(".")[0]
    return _SECTIONS.index(section) if section in _SECTIONS else -1


def uv_settings(lines: Iterable[str]) -> dict[str, str]:
    """Turn lines such as ``global.index-url='https://...'`` into uv's variables.

    Raises
    ------
    UnknownSettingError
        If a setting of pip's installs has no match.
    """
    # As pip does: the machine's certificates, and the newest of all indices.
    settings = {"UV_SYSTEM_CERTS": "1", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    if "REQUESTS_CA_BUNDLE" in os.environ:
        settings["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"]
    for line in sorted(lines, key=_rank):
        name, _, value = line.partition("=")
        section, _, key = name.strip().rpartition(".")
        if section not in _SECTIONS or key in _IGNORED:
            continue
        if key not in _VARIABLES:
            raise UnknownSettingError(key)
        variable = _VARIABLES[key]
        words = str(ast.literal_eval(value.strip())).split()
        settings[variable] = _SEPARATORS.get(variable, " ").join(words)
    return settings


if __name__ == "__main__":
    try:
        for variable, value in uv_settings(sys.stdin).items():
            print(f"{variable}={value}")
    except UnknownSettingError as error:
        print(error)
        sys.exit(1)
