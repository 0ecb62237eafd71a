"""Files that are replaced are used at once, and calls that run go on."""

import ssl

import pytest
from pod import Pod
from stand import Running, Stand, bearer, wait_until


@pytest.fixture(params=[Stand, Pod], ids=["renamed", "mounted"])
def own_stand(request):
    """Fronts of one's own: one whose files are renamed over, and one of a pod."""
    with request.param() as made:
        yield made


@pytest.fixture
def running(own_stand):
    """Calls of bob, by a certificate, through one connection."""
    pair = own_stand.lab.issue("bob", "DNS:bob")
    with own_stand.channel(pair) as channel, Running(channel) as calls:
        yield calls
    calls.assert_all("bob")


def test_a_certificate(own_stand, running):
    alice = bearer(own_stand.token())
    address = ("127.0.0.1", own_stand.port)
    pair = own_stand.lab.issue("front", "IP:127.0.0.1", "serverAuth")
    told = own_stand.write("--certificate", pair[0], "--key", pair[1])
    assert "certificate.json" in told and "envoy.yaml\n" in told
    wait_until(lambda: ssl.get_server_certificate(address) in pair[0].read_text())
    ca = own_stand.lab.pem.read_bytes()
    assert own_stand.who(alice, ca=ca) == "alice"


def test_a_list_of_revoked_certificates(own_stand, running):
    alice = own_stand.lab.issue("alice", "DNS:alice")
    bob = own_stand.lab.folder / "bob.pem", own_stand.lab.folder / "bob.key"
    own_stand.write("--crl", own_stand.lab.revoke())
    assert own_stand.who(pair=alice) == "alice"
    own_stand.write("--crl", own_stand.lab.revoke(alice[0]))
    wait_until(lambda: own_stand.who(pair=alice) == "UNAVAILABLE")
    assert own_stand.who(pair=bob) == "bob"


def test_a_key_that_signs(own_stand, running):
    old = own_stand.token()
    assert own_stand.who(bearer(old)) == "alice"
    (own_stand.folder / "signing-key.pem").unlink()
    own_stand.write()
    wait_until(lambda: own_stand.who(bearer(old)) == "UNAUTHENTICATED")
    assert own_stand.who(bearer(own_stand.token())) == "alice"
