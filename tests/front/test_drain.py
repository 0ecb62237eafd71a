"""Server and front end without a lost call."""

import subprocess

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


def test_a_drained_front_loses_no_call(own_stand):
    alice = bearer(own_stand.token())

    def admin(method, path):
        """Ask Envoy at its own socket, as deploy/front/README.md does."""
        command = ["curl", "-sS", "-X", method, "--unix-socket"]
        url = f"http://front/{path}"
        return subprocess.run(
            [*command, own_stand.out / "admin.sock", url],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
        ).stdout

    def is_idle():
        active = admin("GET", "stats?filter=http.front.downstream_rq_active")
        return active.split()[-1] == "0"

    with own_stand.channel() as channel:
        net = create(channel, alice, "seq-mnist")
        call, messages, rest = open_upload(channel, alice, net)
        admin("POST", "drain_listeners")
        wait_until(lambda: own_stand.who(alice) == "UNAVAILABLE")
        assert who(channel, alice) == "alice"
        assert not is_idle()
        for message in (*rest, None):
            messages.put(message)
        call.result(LIMIT_S)
        wait_until(is_idle)
    own_stand.envoy.terminate()
    assert own_stand.envoy.wait(LIMIT_S) == 0
    own_stand.start_envoy()
    assert own_stand.who(alice) == "alice"
