"""TLS, certificates and tokens of a client, against real endpoints of TLS."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import backboned
import numpy as np
import pytest
from backboned.errors import InvalidArgument, Refused, Unavailable
from backboned.transport import session
from backboned.transport.retries import Patience
from test_lifecycle import wait_until
from tls_front import Authority, Recorder, TlsFront

pytestmark = pytest.mark.transports

IMAGES = np.linspace(0, 1, 2 * 784, dtype=np.float32).reshape(2, 1, 28, 28)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def own(authority):
    """Files of the certificate of a client, and its key."""
    return authority.issue("client")


@pytest.fixture
def front(server, shown):
    with TlsFront(server.target, shown) as front:
        yield front


@pytest.fixture
def asking(server, shown, authority):
    """A front that wants a certificate of each client."""
    with TlsFront(server.target, shown, authority.ca) as front:
        yield front


@pytest.fixture
def recorder(server):
    with Recorder(server) as recorder:
        yield recorder


@pytest.fixture
def recorded(recorder, shown):
    """A front of TLS before the recorder."""
    with TlsFront(recorder.target, shown) as front:
        yield front


def connect(front, **options):
    """Connect, and let no call wait for the server."""
    return backboned.connect(front.target, reconnect_timeout=0, **options)


def instance(server):
    return server.create("seq-mnist", seed=0, module=False)


def logits(net):
    return net.forward(IMAGES).outputs["out"]


def check(server):
    """Make some calls."""
    assert logits(instance(server)).shape == (2, 10)


def test_calls_through_tls_answer_as_others(front, authority, server):
    with connect(front, ca=authority.ca) as secure:
        expected = logits(instance(server))
        np.testing.assert_array_equal(logits(instance(secure)), expected)


@pytest.mark.parametrize("form", [str, Path, Path.read_text, Path.read_bytes])
def test_certificates_are_paths_or_pem(asking, authority, own, form):
    certificate, key = map(form, own)
    options = {"ca": form(authority.ca), "certificate": certificate, "key": key}
    with connect(asking, **options) as secure:
        check(secure)


def test_a_client_without_the_certificate_that_is_wanted(asking, authority):
    with pytest.raises(Unavailable, match="may want a certificate of the client"):
        connect(asking, ca=authority.ca)


@pytest.mark.parametrize("days", [1, -1], ids=["of another CA", "expired"])
def test_a_client_with_a_wrong_certificate(asking, authority, stranger, days):
    issuer = stranger if days > 0 else authority
    certificate, key = issuer.issue(f"wrong{days}", days)
    with pytest.raises(Unavailable, match="may refuse the client's certificate"):
        connect(asking, ca=authority.ca, certificate=certificate, key=key)


def test_a_server_of_another_authority(front, stranger):
    with pytest.raises(Unavailable, match="CA that was given has not signed"):
        connect(front, ca=stranger.ca)


def test_a_server_of_an_authority_that_the_system_does_not_know(front, own):
    certificate, key = own
    with pytest.raises(Unavailable, match="no CA of this system .*: give ca="):
        connect(front, certificate=certificate, key=key)


def test_a_server_whose_certificate_has_expired(server, authority):
    with TlsFront(server.target, authority.issue("old", days=-1)) as front:
        with pytest.raises(Unavailable, match="its certificate has expired"):
            connect(front, ca=authority.ca)


def test_a_server_with_a_certificate_of_another_host(server, authority):
    names = "subjectAltName=DNS:elsewhere"
    with TlsFront(server.target, authority.issue("else", names=names)) as front:
        with pytest.raises(Unavailable, match="its certificate is not for this host"):
            connect(front, ca=authority.ca)


def test_a_plain_client_at_a_port_of_tls(front):
    with pytest.raises(Unavailable, match="if it speaks TLS, give ca="):
        connect(front)


def test_a_client_of_tls_at_a_plain_port(recorder, authority):
    with pytest.raises(Unavailable, match="it speaks no TLS there"):
        connect(recorder, ca=authority.ca)


def test_a_key_that_is_not_the_certificates(asking, authority, own, stranger):
    _, key = stranger.issue("other")
    with pytest.raises(
        backboned.BackbonedError, match="the key is not that of the certificate"
    ):
        connect(asking, ca=authority.ca, certificate=own[0], key=key)


def test_a_token_goes_with_every_call(recorder, recorded, authority):
    with connect(recorded, ca=authority.ca, token="secret") as secure:
        transport = secure.info().transport
        check(secure)
    assert set(recorder.tokens()) == {"Bearer secret"}
    method = "Calls" if transport == "native" else "Forward"
    assert recorder.tokens(method) == ["Bearer secret"]


def test_a_token_goes_through_a_unix_socket_without_tls(server):
    with backboned.connect(server.target, token="secret") as other:
        check(other)


def renew(file, text):
    """Rename a new file over the old one."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


def test_a_tokens_file_is_read_for_each_connection(
    recorder, recorded, authority, tmp_path
):
    file = tmp_path / "token"
    file.write_text("first\n")
    with connect(recorded, ca=authority.ca, token=file) as secure:
        net = instance(secure)
        logits(net)
        renew(file, "second\n")
        recorder.calls.clear()
        secure.info()
        logits(net)
        # An open stream is not asked again.
        native = secure.channel.transport == "native"
        assert recorder.tokens("GetServer") == ["Bearer second"]
        assert recorder.tokens("Calls") == []
        assert recorder.tokens("Forward") == ([] if native else ["Bearer second"])
        recorded.cut()
        recorder.calls.clear()
        with contextlib.suppress(Unavailable):
            logits(net)
        logits(net)
    assert set(recorder.tokens()) == {"Bearer second"}
    assert recorder.tokens("Calls" if native else "Forward")


def test_a_call_waits_for_a_server_and_shows_it_a_new_token(
    recorder, recorded, authority
):
    tokens = iter(f"t{n}" for n in range(1000))
    with backboned.connect(
        recorded.target, ca=authority.ca, token=lambda: next(tokens)
    ) as secure:
        net = instance(secure)
        logits(net)
        recorded.cut()
        assert logits(net).shape == (2, 10)
    given = recorder.tokens()
    assert len(set(given)) == len(given) and None not in given


def test_an_expired_token_is_said_so(recorder, recorded, authority, tmp_path):
    file = tmp_path / "token"
    file.write_text("good")
    recorder.accepted = "Bearer good"
    with pytest.raises(Refused, match="refuses the token; has it expired.*Jwt is exp"):
        connect(recorded, ca=authority.ca, token="old")
    with pytest.raises(Refused, match="wants credentials: give token="):
        connect(recorded, ca=authority.ca)
    with backboned.connect(recorded.target, ca=authority.ca, token=file) as secure:
        net = instance(secure)
        logits(net)
        renew(file, "old")
        recorded.cut()
        with pytest.raises(Refused, match="has it expired"):
            for _ in range(3):
                logits(net)
        # Nor does a call wait for a server that refuses the token.
        with pytest.raises(Refused, match="has it expired"):
            secure.channel.await_server(Unavailable("it was away"), Patience(60.0))
        renew(file, "good")
        assert logits(net).shape == (2, 10)


def test_a_token_that_cannot_be_read_ends_the_call(
    recorder, recorded, authority, tmp_path
):
    file = tmp_path / "token"
    file.write_text("good")
    with connect(recorded, ca=authority.ca, token=file) as secure:
        net = instance(secure)
        file.unlink()
        recorder.calls.clear()
        missing = f"^there is no token: the token's file {file} cannot be read: No such"
        with pytest.raises(Refused, match=missing):
            logits(net)
        with pytest.raises(Refused, match=missing):
            secure.info()
        file.write_text("two words")
        with pytest.raises(Refused, match="^there is no token: a token is 1 to 7168"):
            logits(net)
        assert recorder.calls == []
        file.write_text("good")
        assert logits(net).shape == (2, 10)


@pytest.mark.parametrize("raised", [RuntimeError("no login"), KeyboardInterrupt()])
def test_a_function_that_fails_ends_the_call(recorded, authority, raised):
    failing = False

    def token():
        if failing:
            raise raised
        return "good"

    with connect(recorded, ca=authority.ca, token=token) as secure:
        net = instance(secure)
        failing = True
        interrupted = isinstance(raised, KeyboardInterrupt)
        error = KeyboardInterrupt if interrupted else Refused
        with pytest.raises(error, match="^$" if interrupted else "no token.*no login"):
            logits(net)
        failing = False
        assert logits(net).shape == (2, 10)


def test_a_session_is_kept_alive_after_a_token_that_failed(
    recorded, authority, monkeypatch
):
    monkeypatch.setattr(session, "_FIRST_TTL_S", 0.3)
    asked = []

    def token():
        if threading.current_thread().name == "backboned-keepalive":
            asked.append("asked")
            if len(asked) < 3:
                raise RuntimeError("no login")
        return "good"

    with connect(recorded, ca=authority.ca, token=token) as secure:
        net = instance(secure)
        wait_until(lambda: len(asked) >= 3)
        assert logits(net).shape == (2, 10)


def test_no_token_goes_in_clear_through_tcp():
    came = []

    def take():
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                came.append(connection.recv(1 << 16))
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take)
        thread.start()
        with pytest.raises(Unavailable):
            backboned.connect(
                "{}:{}".format(*listener.getsockname()),
                token="secret",
                reconnect_timeout=0,
            )
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    # The beginning of a handshake.
    assert came and all(bytes[:2] == b"\x16\x03" for bytes in came)


def test_a_token_needs_no_ca_where_grpc_trusts_the_servers(front, authority):
    program = (
        "import sys, backboned\n"
        "with backboned.connect(sys.argv[1], token='secret', reconnect_timeout=0) as s:"
        " print(s.info().principal)"
    )
    trusting = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(authority.ca)}
    ended = [
        subprocess.run(
            [sys.executable, "-c", program, front.target],
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=60,
        )
        for more in (trusting, {})
    ]
    assert ended[0].stdout == "local\n", ended[0].stderr
    assert "Unavailable" in ended[1].stderr


def mistakes(authority, own):
    certificate, key = own
    return {
        "certificate is given without key": {"certificate": certificate},
        "key is given without certificate": {"key": key},
        "ca /nowhere/ca.pem cannot be read: No such file": {"ca": "/nowhere/ca.pem"},
        "ca is int; it is a path or PEM": {"ca": 7},
        f"ca {key} is no certificate in PEM": {"ca": key},
        "ca is no certificate in PEM": {"ca": "-----BEGIN CERTIFICATE-----\nx"},
        f"certificate {key} is no certificate": {"certificate": key, "key": key},
        f"key {certificate} is no private key in PEM without a passphrase": {
            "certificate": certificate,
            "key": certificate,
        },
        "token is 1 to 7168 printable": {"ca": authority.ca, "token": "two words"},
        "token is int; it is a str, a path, or a function": {"token": 7},
        "wait is for a connection file; host:1 is a target": {"wait": 1},
        "wait is -1; it is a number of seconds": {"wait": -1},
    }


def test_each_mistake_is_a_sentence(authority, own):
    for sentence, options in mistakes(authority, own).items():
        with pytest.raises(InvalidArgument, match=f"^{re.escape(sentence)}"):
            backboned.connect("host:1", **options)


def test_no_secret_is_in_what_is_printed(front, authority):
    with connect(front, ca=authority.ca, token="secret") as secure:
        shown = vars(secure.channel).values()
        assert "secret" not in repr([secure, *shown])
