"""Unary methods can be called with JSON, with the same rights."""

import base64
import http.client
import json
import ssl

import grpc
import numpy as np
import pytest
from backboned.v1 import backbone_service_pb2 as backbone
from backboned.v1 import tensor_pb2 as tensor

SHAPE = [2, 1, 28, 28]


@pytest.fixture
def post(stand):
    """Posts JSON to a method; gives the status and the answer."""

    def post_one(method, body, metadata=()):
        context = ssl.create_default_context(cadata=stand.ca.decode())
        connection = http.client.HTTPSConnection(
            "127.0.0.1", stand.port, context=context, timeout=30
        )
        headers = {"content-type": "application/json", **dict(metadata)}
        path = f"/backboned.v1.{method}"
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, text

    return post_one


def test_who_calls(post, alice):
    status, text = post("InstanceService/GetServer", {}, alice)
    assert (status, json.loads(text)["principal"]) == (200, "alice")
    forged = (*alice, ("backboned-principal", "bob"))
    _, text = post("InstanceService/GetServer", {}, forged)
    assert json.loads(text)["principal"] == "alice"


def test_nobody_and_a_wrong_token(post):
    assert post("InstanceService/GetServer", {})[0] == 403
    wrong = (("authorization", "Bearer nonsense"),)
    assert post("InstanceService/GetServer", {}, wrong)[0] == 401


def test_extract_has_the_bits_of_grpc(stand, post, alice):
    name = "json"
    status, _ = post(
        "InstanceService/CreateInstance",
        {"name": name, "benchmark": "seq-mnist", "seed": 0},
        alice,
    )
    assert status == 200
    data = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8).tobytes()
    status, text = post(
        "BackboneService/Extract",
        {
            "instance": name,
            "input": {"dtype": "DATA_TYPE_UINT8", "shape": SHAPE},
            "data": base64.b64encode(data).decode(),
            "output": "out",
        },
        alice,
    )
    assert status == 200, text
    request = backbone.ExtractRequest(
        instance=name,
        input=tensor.TensorSpec(dtype=tensor.DATA_TYPE_UINT8, shape=SHAPE),
        data=data,
        output="out",
    )
    with stand.channel() as channel:
        answer = channel.unary_unary("/backboned.v1.BackboneService/Extract")(
            request.SerializeToString(), timeout=30, metadata=alice
        )
    expected = backbone.ExtractResponse.FromString(answer)
    assert base64.b64decode(json.loads(text)["data"]) == expected.data
    assert json.loads(text)["digest"] == expected.digest


def test_an_error_says_why(post, alice):
    status, text = post("InstanceService/GetInstance", {"instance": "no-net"}, alice)
    error = json.loads(text)
    assert (status, error["code"]) == (404, grpc.StatusCode.NOT_FOUND.value[0])
    assert error["details"][0]["reason"] == "ERROR_REASON_INSTANCE_NOT_FOUND"


@pytest.mark.parametrize("method", ["GetParams", "Calls", "Nothing"])
def test_streams_are_for_grpc(post, alice, method):
    assert post(f"BackboneService/{method}", {}, alice)[0] == 404


def test_a_body_over_the_limit(post, alice):
    status, _ = post(
        "InstanceService/GetInstance", {"instance": "x" * (7 << 20)}, alice
    )
    assert status in {413, 429}  # The front's limit, or the server's for a message.
