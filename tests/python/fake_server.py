"""A server whose answers are scripted, byte by byte."""

import contextlib
from concurrent import futures

import grpc
import numpy as np
from backboned.instance import Instance
from backboned.transport.channel import Channel
from backboned.v1 import instance_pb2, tensor_pb2


class Script(grpc.GenericRpcHandler):
    """Answers every method with the messages that its script gives.

    `answers` maps a method's name to a callable: request messages to answer messages.
    `requests` keeps what each call sent.
    """

    def __init__(self):
        self.answers = {}
        self.requests = []
        self.metadata = []

    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        self.metadata.append(dict(details.invocation_metadata))
        if name not in self.answers:
            return None

        def run(messages, context):
            received = list(messages)
            self.requests.append((name, received))
            yield from self.answers[name](received, context)

        return grpc.stream_stream_rpc_method_handler(run)


@contextlib.contextmanager
def scripted_server():
    """Run a scripted server; gives its script and a channel to it."""
    script = Script()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((script,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = Channel(f"127.0.0.1:{port}", timeout=10)
    try:
        yield script, channel
    finally:
        channel.close()
        server.stop(None).wait()


def fake_instance(channel, elements=4):
    """An instance with two parameters, a [elements - 1] and b [1], and no buffer."""
    message = instance_pb2.Instance(
        name="fake", owner="local", version=instance_pb2.Version(uid="u", params=1)
    )
    layout = message.layout
    layout.parameter_elements = elements
    layout.parameters.add(name="a", shape=[elements - 1], offset=0)
    layout.parameters.add(name="b", shape=[1], offset=elements - 1)
    layout.outputs.extend(["out", "features"])
    return Instance(channel, message)


def flat_spec(count):
    return tensor_pb2.TensorSpec(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[count])


def message_of(cls, header=None, offset=0, data=None):
    """Encode a message of the contract by the generated code."""
    message = cls()
    if header is not None:
        message.header.CopyFrom(header)
    if data is not None:
        message.chunk.offset = offset
        message.chunk.data = bytes(data)
    return message.SerializeToString()


def numbers(count):
    return np.arange(count, dtype=np.float32)
