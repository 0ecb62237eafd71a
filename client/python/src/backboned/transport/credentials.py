"""Says what a client shows a server, and how it knows the server."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Union

import grpc

from backboned.errors import BackbonedError, InvalidArgument, Refused

Pem = Union[str, bytes, "os.PathLike[str]"]
"""A path, or PEM itself."""

Token = Union[str, "os.PathLike[str]", Callable[[], str]]
"""A token, the file that it is in, or what gives it."""

NO_TOKEN = "there is no token"
"""Begins the sentence of a call that was not made since its token cannot be read."""

_BEGIN = "-----BEGIN"
# Words of grpc's for a connection that the other side ended.
_CUT = (
    "Socket closed",
    "Unwrap failed",
    "alert",
    "ALERT",
    "reset by peer",
    "Broken pipe",
)
# With it a call's metadata stay below gRPC's limit of 8 KiB.
_TOKEN_FORM = "1 to 7168 printable characters of ASCII without spaces"
_TOKEN = re.compile(r"[!-~]{1,7168}")


@dataclasses.dataclass(frozen=True, repr=False)
class Credentials:
    """The credentials that `backboned.connect` was given, read.

    - `ca`, `certificate`, `key`: PEM; empty: none.
    - `ask_token`: gives the token; None: there is none.
    """

    ca: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    ask_token: Callable[[], str] | None = None

    def use_tls(self, target: str) -> bool:
        """Say whether the connection to a target is one of TLS.

        A CA or a certificate wants it, and a token that goes to no Unix socket.
        """
        if self.ca or self.certificate:
            return True
        return self.ask_token is not None and not target.startswith("unix:")

    def check(self) -> None:
        """Raise InvalidArgument for a certificate without its key, or the reverse."""
        if bool(self.certificate) != bool(self.key):
            given, missing = "certificate", "key"
            if self.key:
                given, missing = missing, given
            raise InvalidArgument(
                f"{given} is given without {missing}; a client shows both, or neither"
            )

    def token(self) -> str:
        """Give the token of a call; only if there is one.

        Raises Refused if it cannot be read, or is none.
        """
        assert self.ask_token is not None
        try:
            token = self.ask_token()
            if isinstance(token, str) and _TOKEN.fullmatch(token):
                return token
            why = f"a token is {_TOKEN_FORM}"
        except BackbonedError as error:
            why = error.message
        except Exception as error:
            why = f"the function raised {error!r}"
        raise Refused(f"{NO_TOKEN}: {why}", grpc.StatusCode.UNAUTHENTICATED)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Give the metadata of a call.

        Not by call credentials of grpc's: those take as long as a small call itself.

        Raises Refused if there is to be a token, and is none.
        """
        if self.ask_token is None:
            return ()
        return (("authorization", f"Bearer {self.token()}"),)

    def why_refused(self, target: str) -> str:
        """Say why a server may have refused a call's credentials."""
        if self.ask_token is not None:
            return f"the server at {target} refuses the token; has it expired?"
        if self.certificate:
            return f"the server at {target} refuses the certificate"
        return (
            f"the server at {target} wants credentials: give token=, or certificate= "
            "and key="
        )

    def why_broken(self, target: str, message: str, answered: bool) -> str:
        """Say what may be wrong with credentials if no connection came about.

        Gives a half-sentence; empty if nothing is known.

        - `message`: grpc's.
        - `answered`: whether the server has answered before.
        """
        if not self.use_tls(target):
            suspects = not answered and not target.startswith("unix:")
            if suspects and any(word in message for word in _CUT):
                return "; if it speaks TLS, give ca="
            return ""
        words = message.lower().replace("_", " ")
        if "certificate has expired" in words:
            return "; its certificate has expired"
        if "certificate verify failed" in words:
            if self.ca:
                return "; the CA that was given has not signed its certificate"
            return "; no CA of this system has signed its certificate: give ca="
        if "hostname verification" in words or "peer name" in words:
            return "; its certificate is not for this host"
        if "wrong version number" in words:
            return "; it speaks no TLS there"
        if "security handshaker" in words:
            return "; the key is not that of the certificate"
        if answered or not any(word in message for word in _CUT):
            return ""
        if self.certificate:
            return "; it may refuse the client's certificate"
        return "; it may want a certificate of the client: give certificate= and key="

    def channel(self, target: str, options: Sequence[tuple[str, Any]]) -> Any:
        """Make a channel of grpc's."""
        if not self.use_tls(target):
            return grpc.insecure_channel(target, options=options)
        shown = grpc.ssl_channel_credentials(
            self.ca or None, self.key or None, self.certificate or None
        )
        return grpc.secure_channel(target, shown, options=options)


def read(
    ca: Pem | None = None,
    certificate: Pem | None = None,
    key: Pem | None = None,
    token: Token | None = None,
) -> Credentials:
    """Read what a caller gave.

    Raises InvalidArgument: a file cannot be read, or is no PEM of its kind.
    """
    pems = {"ca": ca, "certificate": certificate, "key": key}
    read = {what: _pem(what, pem) for what, pem in pems.items() if pem is not None}
    return Credentials(**read, ask_token=None if token is None else _asking(token))


def _pem(what: str, given: Pem) -> bytes:
    if not isinstance(given, (str, bytes, os.PathLike)):
        raise InvalidArgument(f"{what} is {type(given).__name__}; it is a path or PEM")
    origin, pem = what, given
    if isinstance(pem, bytes):
        pem = pem.decode(errors="replace")
    if isinstance(pem, os.PathLike) or _BEGIN not in pem:
        origin, pem = f"{what} {os.fspath(pem)}", read_text(what, pem)
    if what == "key":
        if "PRIVATE KEY-----" not in pem or "ENCRYPTED" in pem:
            raise InvalidArgument(
                f"{origin} is no private key in PEM without a passphrase"
            )
    elif not _has_certificate(pem):
        raise InvalidArgument(f"{origin} is no certificate in PEM")
    return pem.encode()


def _has_certificate(pem: str) -> bool:
    import ssl  # Most clients need none.

    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        store.load_verify_locations(cadata=pem.encode("ascii", "ignore").decode())
    except ssl.SSLError:
        return False
    return True


def read_text(what: str, path: str | os.PathLike[str]) -> str:
    """Read a file that is named as `what`.

    Raises InvalidArgument if that fails.
    """
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidArgument(
            f"{what} {os.fspath(path)} cannot be read: {why}"
        ) from None


def _asking(token: Token) -> Callable[[], str]:
    if isinstance(token, str):
        if not _TOKEN.fullmatch(token):
            raise InvalidArgument(f"token is {_TOKEN_FORM}")
        return lambda: token
    if isinstance(token, os.PathLike):
        path = token
        return lambda: read_text("the token's file", path).strip()
    if callable(token):
        return token
    raise InvalidArgument(
        f"token is {type(token).__name__}; it is a str, a path, or a function"
    )
