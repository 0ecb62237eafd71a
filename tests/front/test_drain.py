"""The server behind a front ends without a lost call, and comes back."""

import grpc
from stand import GET_SERVER, LIMIT_S, bearer, end_server, reason_of, wait_until, who
from test_streams import create, open_upload


def refusal(channel, metadata):
    """Give the error of a call, if it has one."""
    try:
        channel.unary_unary(GET_SERVER)(b"", timeout=LIMIT_S, metadata=metadata)
    except grpc.RpcError as error:
        return error
    return None


def test_a_drained_server_loses_no_call(own_stand):
    alice = bearer(own_stand.token())
    with own_stand.channel() as channel:
        net = create(channel, alice, "seq-mnist")
        call, messages, rest = open_upload(channel, alice, net)
        end_server(own_stand)
        refused = wait_until(lambda: refusal(channel, alice))
        assert refused.code() == grpc.StatusCode.UNAVAILABLE
        assert reason_of(refused) == "ERROR_REASON_DRAINING"
        for message in (*rest, None):
            messages.put(message)
        call.result(LIMIT_S)
        assert own_stand.server.wait(LIMIT_S) == 0
        assert who(channel, alice) == "UNAVAILABLE"
        own_stand.start_server()
        wait_until(lambda: who(channel, alice) == "alice")
