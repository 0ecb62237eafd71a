package io.backboned.example;

import static io.backboned.example.TensorStream.receive;
import static io.backboned.example.TensorStream.send;

import com.google.protobuf.ByteString;
import io.backboned.example.TensorStream.Received;
import io.backboned.v1.BackboneServiceGrpc.BackboneServiceBlockingV2Stub;
import io.backboned.v1.BackwardHeader;
import io.backboned.v1.BackwardRequest;
import io.backboned.v1.BackwardResponse;
import io.backboned.v1.ExtractRequest;
import io.backboned.v1.ExtractResponse;
import io.backboned.v1.ForwardHeader;
import io.backboned.v1.ForwardRequest;
import io.backboned.v1.ForwardResponse;
import io.backboned.v1.GetParamsRequest;
import io.backboned.v1.GetParamsResponse;
import io.backboned.v1.IfVersion;
import io.backboned.v1.Selection;
import io.backboned.v1.SetParamsHeader;
import io.backboned.v1.SetParamsRequest;
import io.backboned.v1.TapeGradients;
import io.backboned.v1.TensorSpec;
import io.backboned.v1.Version;
import io.grpc.StatusException;
import java.time.Duration;
import java.util.List;

/** One instance: the calls of this example, each with a deadline. */
final class Backbone {
  /** The time that a call gets from its beginning. */
  static final Duration TIMEOUT = Duration.ofMinutes(1);

  static final Selection ALL = Selection.getDefaultInstance();

  /** The classifier's parameters. */
  static final Selection HEAD = Selection.newBuilder().addGlobs("classifier.*").build();

  private final BackboneServiceBlockingV2Stub stub;
  private final String name;

  Backbone(BackboneServiceBlockingV2Stub stub, String name) {
    this.stub = stub;
    this.name = name;
  }

  /** Gives features of images, in one message each way. */
  ExtractResponse extract(TensorSpec images, byte[] pixels) throws StatusException {
    var request =
        ExtractRequest.newBuilder()
            .setInstance(name)
            .setInput(images)
            .setData(ByteString.copyFrom(pixels))
            .setAllowMerge(false);
    return stub.withDeadlineAfter(TIMEOUT).extract(request.build());
  }

  /** Runs a forward; gives its result and the bytes of its outputs. Fills in the name. */
  Received<ForwardResponse> forward(ForwardHeader.Builder header, byte[] pixels)
      throws InterruptedException, StatusException {
    var call = stub.withDeadlineAfter(TIMEOUT).forward();
    var request = ForwardRequest.newBuilder().setHeader(header.setInstance(name));
    send(call, request, (message, chunk) -> message.setChunk(chunk).build(), pixels);
    return receive(
        call, first -> first.getHeader().getOutputsList(), ForwardResponse::getChunk);
  }

  /** Gives the flat gradient of a kept forward, from the gradient of its output. */
  Received<BackwardResponse> backward(String tapeId, TensorSpec output, byte[] gradient)
      throws InterruptedException, StatusException {
    var header =
        BackwardHeader.newBuilder()
            .setInstance(name)
            .addTapes(TapeGradients.newBuilder().setTapeId(tapeId).addGradients(output))
            .setReturnGrads(true);
    var call = stub.withDeadlineAfter(TIMEOUT).backward();
    var request = BackwardRequest.newBuilder().setHeader(header);
    send(call, request, (message, chunk) -> message.setChunk(chunk).build(), gradient);
    return receive(
        call,
        first -> List.of(first.getHeader().getGrads().getSpec()),
        BackwardResponse::getChunk);
  }

  /** Reads the selected parameters. */
  Received<GetParamsResponse> getParams(Selection selection)
      throws InterruptedException, StatusException {
    var request = GetParamsRequest.newBuilder().setInstance(name).setSelection(selection);
    var call = stub.withDeadlineAfter(TIMEOUT).getParams(request.build());
    return receive(
        call, first -> List.of(first.getHeader().getSpec()), GetParamsResponse::getChunk);
  }

  /** Replaces the classifier if the parameters are still of that version. */
  Version setHead(TensorSpec spec, byte[] values, Version version)
      throws InterruptedException, StatusException {
    var header =
        SetParamsHeader.newBuilder()
            .setInstance(name)
            .setSelection(HEAD)
            .setIfVersion(
                IfVersion.newBuilder().setUid(version.getUid()).setParams(version.getParams()))
            .setSpec(spec);
    var call = stub.withDeadlineAfter(TIMEOUT).setParams();
    var request = SetParamsRequest.newBuilder().setHeader(header);
    send(call, request, (message, chunk) -> message.setChunk(chunk).build(), values);
    return call.read().getVersion();
  }
}
