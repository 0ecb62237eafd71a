"""Uses a Backboned server with nothing but grpcio and generated code.

Usage: example.py TARGET, which is host:port or unix:/path. --ca FILE makes the
connection one of TLS; --certificate FILE and --key FILE, and --token-file FILE, are
what the client shows.
"""

import argparse
import array
import hashlib
import secrets
import sys
from pathlib import Path

import grpc
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1.backbone_service_pb2_grpc import BackboneServiceStub
from backboned.v1.error_pb2 import ErrorDetail, ErrorReason, StatusDetails
from backboned.v1.instance_pb2 import IfVersion
from backboned.v1.instance_service_pb2 import (
    CreateInstanceRequest,
    DeleteInstanceRequest,
    GetServerRequest,
)
from backboned.v1.instance_service_pb2_grpc import InstanceServiceStub
from backboned.v1.selection_pb2 import Selection
from backboned.v1.tensor_pb2 import DataType, TensorSpec
from tensor_stream import StreamError, receive, send

TIMEOUT_S = 60  # Of each call.
HEAD = Selection(globs=["classifier.*"])
# Variables like http_proxy would send calls to this machine through a proxy, too.
CHANNEL = [("grpc.enable_http_proxy", 0)]
IMAGES = TensorSpec(dtype=DataType.DATA_TYPE_UINT8, shape=[8, 3, 32, 32])
PIXELS = bytes(i * 7919 % 256 for i in range(8 * 3 * 32 * 32))


class Backbone:
    """One instance: the calls of this example, each with deadline and session."""

    def __init__(self, stub, name, call_options):
        self.stub = stub
        self.name = name
        self.call_options = call_options

    def extract(self):
        """Return the spec and the bytes of the features, in one message each way."""
        answer = self.stub.Extract(
            pb.ExtractRequest(
                instance=self.name, input=IMAGES, data=PIXELS, allow_merge=False
            ),
            **self.call_options,
        )
        return answer.output, answer.data

    def forward(self, output, **options):
        """Run a forward; return its result and the bytes of one output."""
        header = pb.ForwardHeader(
            instance=self.name, outputs=[output], inputs=[IMAGES], **options
        )
        answer = self.stub.Forward(
            send(pb.ForwardRequest, header, PIXELS), **self.call_options
        )
        return receive(answer, lambda result: result.outputs)

    def backward(self, tape_id, spec, gradient):
        """Return the flat gradient of the forward that `tape_id` kept."""
        tape = pb.TapeGradients(tape_id=tape_id, gradients=[spec])
        header = pb.BackwardHeader(instance=self.name, tapes=[tape], return_grads=True)
        answer = self.stub.Backward(
            send(pb.BackwardRequest, header, gradient), **self.call_options
        )
        return receive(answer, lambda result: [result.grads.spec])

    def get_params(self, selection=None):
        """Return the version and the flat parameters."""
        request = pb.GetParamsRequest(instance=self.name, selection=selection)
        answer = self.stub.GetParams(request, **self.call_options)
        return receive(answer, lambda result: [result.spec])

    def set_head(self, values, if_version):
        """Replace the classifier if the parameters are still of that version."""
        header = pb.SetParamsHeader(
            instance=self.name,
            selection=HEAD,
            if_version=IfVersion(uid=if_version.uid, params=if_version.params),
            spec=TensorSpec(dtype=DataType.DATA_TYPE_FLOAT32, shape=[len(values)]),
        )
        return self.stub.SetParams(
            send(pb.SetParamsRequest, header, values.tobytes()), **self.call_options
        ).version


def reason_of(error):
    """Return the machine-readable reason of a call that failed."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            detail = ErrorDetail()
            StatusDetails.FromString(value).details[0].Unpack(detail)
            return detail.reason
    return ErrorReason.ERROR_REASON_UNSPECIFIED


def set_stale_head(net, values, version):
    """Write what must be refused; return why it was."""
    try:
        net.set_head(values, version)
    except grpc.RpcError as error:
        if reason_of(error) != ErrorReason.ERROR_REASON_STALE_VERSION:
            raise
        return ErrorReason.Name(reason_of(error))
    raise StreamError("a stale version was accepted")


def use(net):
    """Go through the calls; print what they gave, and the answers' checksum."""
    sha256 = hashlib.sha256()

    spec, features = net.extract()
    print(f"features:   {list(spec.shape)}")
    sha256.update(features)

    _, features = net.forward("features")
    sha256.update(features)

    result, params = net.get_params()
    print(f"parameters: {result.spec.shape[0]} of version {result.version.params}")
    sha256.update(params)

    read, head = net.get_params(HEAD)
    halved = array.array("f", (value / 2 for value in array.array("f", head)))
    written = net.set_head(halved, read.version)
    print(f"head:       {len(halved)} halved, version {written.params}")
    print(f"again:      refused, {set_stale_head(net, halved, read.version)}")

    result, logits = net.forward("out", training=True, tape=True)
    sha256.update(logits)

    # The gradient of half the sum of the squared logits is the logits.
    result, grads = net.backward(result.tape_id, result.outputs[0], logits)
    print(f"gradients:  {result.grads.spec.shape[0]}")
    sha256.update(grads)

    print(f"sha256:     {sha256.hexdigest()}")


def connect(options):
    """Make the channel that the command line asks for."""
    ca, key, certificate = (
        file and Path(file).read_bytes()
        for file in (options.ca, options.key, options.certificate)
    )
    if not ca:
        return grpc.insecure_channel(options.target, CHANNEL)
    shown = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(options.target, shown, CHANNEL)


def metadata_of(options):
    """Give what goes with each call."""
    # The server drops what a session left, in the end.
    metadata = [("backboned-session", secrets.token_hex(16))]
    if options.token_file:
        # Only through TLS, or to a Unix socket: whoever reads it can use it.
        if not options.ca and not options.target.startswith("unix:"):
            raise ValueError("a token needs --ca, or a target unix:/path")
        token = Path(options.token_file).read_text().strip()
        metadata.append(("authorization", f"Bearer {token}"))
    return metadata


def run(options):
    """Make an instance, use it, and delete it in any case."""
    call_options = {"timeout": TIMEOUT_S, "metadata": metadata_of(options)}
    with connect(options) as channel:
        instances = InstanceServiceStub(channel)
        server = instances.GetServer(GetServerRequest(), **call_options)
        print(f"server:     {server.version}, LibTorch {server.torch_version}")
        request = CreateInstanceRequest(benchmark="seq-cifar10", seed=0)
        name = instances.CreateInstance(request, **call_options).instance.name
        try:
            use(Backbone(BackboneServiceStub(channel), name, call_options))
        finally:
            request = DeleteInstanceRequest(instance=name)
            instances.DeleteInstance(request, **call_options)


def main():
    """Run the example; a failure is one sentence."""
    parser = argparse.ArgumentParser(prog="example.py")
    parser.add_argument("target", metavar="TARGET", help="host:port or unix:/path")
    for option in ("--ca", "--certificate", "--key", "--token-file"):
        parser.add_argument(option, metavar="FILE")
    try:
        run(parser.parse_args())
    except grpc.RpcError as error:
        sys.exit(f"example: {error.code().name}: {error.details()}")
    except (StreamError, OSError, ValueError) as error:
        sys.exit(f"example: {error}")


if __name__ == "__main__":
    main()
