"""The users file has the last word about whom the front names."""

import queue
import time

import grpc
import pytest
from backboned.v1 import backbone_service_pb2 as backbone
from pki import decoded, forge
from stand import bearer, reason_of, wait_until

CALLS = "/backboned.v1.BackboneService/Calls"
REFUSED = "ERROR_REASON_IDENTITY_REFUSED"


@pytest.fixture
def end_of(own_stand):
    """Opens a stream of calls; gives how it ends, with what happens meanwhile."""

    def opened(metadata, happens, pair=None):
        messages = queue.Queue()
        with own_stand.channel(pair) as channel:
            call = channel.stream_stream(CALLS)(
                iter(messages.get, None), metadata=metadata, timeout=30
            )
            # One call of the stream is answered, so that it stands.
            part = backbone.CallsRequest(call=1)
            part.release_tapes.SetInParent()
            messages.put(part.SerializeToString())
            assert backbone.CallsResponse.FromString(next(call)).call == 1
            happens()
            with pytest.raises(grpc.RpcError) as ended:
                next(call)
            messages.put(None)
        return ended.value

    return opened


def test_who_is_no_user_is_refused(own_stand):
    pair = own_stand.lab.issue("carol", "DNS:carol")
    assert own_stand.who(pair=pair) == "PERMISSION_DENIED"
    own_stand.ctl("user", "add", "carol")
    wait_until(lambda: own_stand.who(pair=pair) == "carol")


def test_a_new_token_ends_the_older_one_and_its_streams(own_stand, end_of):
    old = bearer(own_stand.token())
    ended = end_of(old, own_stand.token)
    assert ended.code() == grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(ended) == REFUSED
    assert own_stand.who(old) == "UNAUTHENTICATED"


def test_a_removed_user_is_out(own_stand, end_of):
    token = bearer(own_stand.token())
    ended = end_of(token, lambda: own_stand.ctl("user", "remove", "alice"))
    assert ended.code() == grpc.StatusCode.PERMISSION_DENIED
    assert own_stand.who(token) == "PERMISSION_DENIED"


def test_a_stream_ends_with_its_token(own_stand, end_of):
    serial = decoded(own_stand.token())[1]["serial"]
    key = own_stand.folder / "signing-key.pem"
    expires = int(time.time()) + 4
    token = bearer(forge(key, serial=serial, exp=expires))
    assert own_stand.who(token) == "alice"
    ended = end_of(token, lambda: None)
    assert ended.code() == grpc.StatusCode.UNAUTHENTICATED
    assert 0 <= time.time() - expires < 5


def test_a_stream_ends_with_its_certificate(own_stand, end_of):
    expires = int(time.time()) + 6
    pair = own_stand.lab.issue("bob", "DNS:bob", ends=expires)
    assert own_stand.who(pair=pair) == "bob"
    ended = end_of((), lambda: None, pair)
    assert ended.code() == grpc.StatusCode.UNAUTHENTICATED
    assert 0 <= time.time() - expires < 5
