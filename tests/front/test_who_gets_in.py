"""Tokens, certificates and forged ones: the principal, or the refusal."""

import grpc
import pytest
from pki import Authority, decoded, encoded, forge, make_key
from stand import bearer, who

REFUSED = "PERMISSION_DENIED"  # Neither a token nor a certificate.
WRONG = "UNAUTHENTICATED"  # A token that is not ours.
FORGED = (
    ("backboned-principal", "root"),
    ("backboned-principal", "bob"),
    ("backboned-token-serial", "1"),
    ("backboned-token-expires", "9999999999"),
    ("x-forwarded-client-cert", "URI=backboned://principal/bob"),
)


def test_nobody(stand):
    assert stand.who() == REFUSED


def test_forged_names_are_stripped(stand, alice, bobs):
    assert stand.who(FORGED) == REFUSED
    assert stand.who(alice + FORGED) == "alice"
    assert stand.who(FORGED, bobs) == "bob"


def test_a_token(stand, alice):
    assert stand.who(alice) == "alice"


def test_a_certificate(stand, bobs):
    assert stand.who(pair=bobs) == "bob"


def test_a_token_goes_before_a_certificate(stand, alice, bobs):
    assert stand.who(alice, bobs) == "alice"


@pytest.fixture(scope="module")
def key(stand):
    """The key that signs."""
    return stand.folder / "signing-key.pem"


def token_of(alice):
    return alice[0][1].removeprefix("Bearer ")


def serial_of(alice):
    return decoded(token_of(alice))[1]["serial"]


def test_what_is_signed_here_is_taken(stand, alice, key):
    assert stand.who(bearer(forge(key, serial=serial_of(alice)))) == "alice"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": 1}, WRONG),
        ({"exp": None}, WRONG),
        ({"iss": "another"}, WRONG),
        ({"aud": "another"}, REFUSED),  # Signed for others than this server.
    ],
    ids=str,
)
def test_wrong_claims(stand, alice, bobs, key, claims, code):
    token = bearer(forge(key, serial=serial_of(alice), **claims))
    assert stand.who(token) == code
    assert stand.who(token, bobs) == code


def test_a_token_of_another_key(stand, alice, bobs, tmp_path):
    token = bearer(forge(make_key(tmp_path / "key"), serial=serial_of(alice)))
    assert stand.who(token) == WRONG
    assert stand.who(token, bobs) == WRONG


def test_a_tampered_token(stand, alice):
    header, body, signature = alice[0][1].split(".")
    _, claims, _ = decoded(token_of(alice))
    other = encoded(claims | {"sub": "bob"})
    assert stand.who((("authorization", f"{header}.{other}.{signature}"),)) == WRONG
    cut = f"{header}.{body}.{signature[:-6]}AAAAAA"
    assert stand.who((("authorization", cut),)) == WRONG


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256"])
def test_another_algorithm(stand, key, algorithm):
    assert stand.who(bearer(forge(None, {"alg": algorithm}))) == WRONG
    assert stand.who(bearer(forge(key, {"alg": algorithm}))) == WRONG


def test_two_tokens(stand, alice, key):
    assert stand.who(alice + bearer("nonsense")) == WRONG
    assert stand.who(bearer("nonsense") + alice) == WRONG


def test_a_token_in_the_path_is_none(stand, alice):
    path = f"/backboned.v1.InstanceService/GetServer?access_token={token_of(alice)}"
    with stand.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(path)(b"", timeout=10)
    assert refused.value.code().name == REFUSED


@pytest.mark.parametrize(
    ("name", "san"),
    [
        ("none", "email:x@example.org"),
        ("two", "DNS:alice,DNS:bob"),
        ("capital", "DNS:Alice"),
        ("star", "DNS:*"),
    ],
)
def test_a_certificate_without_one_name(stand, name, san):
    pair = stand.lab.issue(name, san)
    assert stand.who(pair=pair) == REFUSED
    assert stand.who(FORGED, pair) == REFUSED


@pytest.mark.parametrize("name", ["local", "server"])
def test_the_servers_own_words_are_nobodys_names(stand, name):
    assert stand.who(pair=stand.lab.issue(name, f"DNS:{name}")) == WRONG


def test_a_certificate_of_another_ca(stand, tmp_path):
    other = Authority(tmp_path / "other", "A lab's CA")
    assert stand.who(pair=other.issue("bob", "DNS:bob")) == "UNAVAILABLE"


def test_a_servers_certificate_is_no_clients(stand):
    pair = stand.lab.issue("server-bob", "DNS:bob", "serverAuth")
    assert stand.who(pair=pair) == "UNAVAILABLE"


def test_a_client_that_does_not_know_the_ca(stand, alice):
    assert stand.who(alice, ca=stand.lab.pem.read_bytes()) == "UNAVAILABLE"


def test_a_plain_client(stand, alice):
    with grpc.insecure_channel(f"127.0.0.1:{stand.port}") as channel:
        assert who(channel, alice) == "UNAVAILABLE"


def test_metadata_over_the_limit(stand, alice, bobs):
    with stand.channel(bobs) as channel:
        assert stand.who(alice + (("a-big", "b" * 5000),)) == "INTERNAL"
        assert stand.who(alice + (("a_name", "b"),)) in {"INTERNAL", "UNAVAILABLE"}
        assert who(channel) == "bob"
