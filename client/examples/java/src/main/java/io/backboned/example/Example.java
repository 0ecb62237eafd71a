package io.backboned.example;

import com.google.protobuf.InvalidProtocolBufferException;
import io.backboned.v1.BackboneServiceGrpc;
import io.backboned.v1.CreateInstanceRequest;
import io.backboned.v1.DataType;
import io.backboned.v1.DeleteInstanceRequest;
import io.backboned.v1.ErrorDetail;
import io.backboned.v1.ErrorReason;
import io.backboned.v1.ForwardHeader;
import io.backboned.v1.GetServerRequest;
import io.backboned.v1.InstanceServiceGrpc;
import io.backboned.v1.InstanceServiceGrpc.InstanceServiceBlockingV2Stub;
import io.backboned.v1.TensorSpec;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.UUID;

/**
 * Uses a Backboned server from Java.
 *
 * <p>Usage: {@code java -jar backboned-example.jar TARGET}, which is {@code host:port} or {@code
 * unix:/path}. {@code --ca=FILE} makes the connection one of TLS; {@code --certificate=FILE} and
 * {@code --key=FILE}, and {@code --token-file=FILE}, are what the client shows.
 */
public final class Example {
  private static final TensorSpec IMAGES =
      TensorSpec.newBuilder()
          .setDtype(DataType.DATA_TYPE_UINT8)
          .addShape(8)
          .addShape(3)
          .addShape(32)
          .addShape(32)
          .build();

  private Example() {}

  /** Runs the example; a failure is one sentence. */
  public static void main(String[] arguments) throws Exception {
    var options = Options.parse(arguments);
    if (options.isEmpty()) {
      System.err.println(
          "usage: backboned-example [--ca=FILE] [--certificate=FILE --key=FILE]"
              + " [--token-file=FILE] TARGET (host:port or unix:/path)");
      System.exit(2);
    }
    Metadata headers = session();
    ManagedChannel channel = null;
    try {
      options.get().addToken(headers);
      channel = Grpc.newChannelBuilder(options.get().target(), options.get().credentials()).build();
    } catch (IOException | IllegalArgumentException error) {
      System.err.println("example: " + error.getMessage());
      System.exit(1);
    }
    try {
      var attaching = MetadataUtils.newAttachHeadersInterceptor(headers);
      run(ClientInterceptors.intercept(channel, attaching));
    } catch (StatusException error) {
      String cause = error.getCause() == null ? "" : ": " + error.getCause().getMessage();
      System.err.println("example: " + error.getMessage() + cause);
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  /** Names a session in each call. What it left is dropped by the server in the end. */
  private static Metadata session() {
    var headers = new Metadata();
    headers.put(
        Metadata.Key.of("backboned-session", Metadata.ASCII_STRING_MARSHALLER),
        UUID.randomUUID().toString());
    return headers;
  }

  /** Makes an instance, uses it, and deletes it in any case. */
  private static void run(Channel channel) throws Exception {
    var instances = InstanceServiceGrpc.newBlockingV2Stub(channel);
    var server = within(instances).getServer(GetServerRequest.getDefaultInstance());
    System.out.printf(
        "server:     %s, LibTorch %s%n", server.getVersion(), server.getTorchVersion());

    var request = CreateInstanceRequest.newBuilder().setBenchmark("seq-cifar10").setSeed(0);
    String name = within(instances).createInstance(request.build()).getInstance().getName();
    try {
      use(new Backbone(BackboneServiceGrpc.newBlockingV2Stub(channel), name));
    } finally {
      within(instances)
          .deleteInstance(DeleteInstanceRequest.newBuilder().setInstance(name).build());
    }
  }

  private static InstanceServiceBlockingV2Stub within(InstanceServiceBlockingV2Stub instances) {
    return instances.withDeadlineAfter(Backbone.TIMEOUT);
  }

  /** Goes through the calls; prints what they gave, and the answers' checksum. */
  private static void use(Backbone net)
      throws InterruptedException, NoSuchAlgorithmException, StatusException {
    var checksum = MessageDigest.getInstance("SHA-256");
    byte[] pixels = pixels();

    var extracted = net.extract(IMAGES, pixels);
    System.out.println("features:   " + extracted.getOutput().getShapeList());
    checksum.update(extracted.getData().asReadOnlyByteBuffer());

    var features =
        net.forward(ForwardHeader.newBuilder().addOutputs("features").addInputs(IMAGES), pixels);
    checksum.update(features.data());

    var params = net.getParams(Backbone.ALL);
    var read = params.first().getHeader();
    System.out.printf(
        "parameters: %d of version %d%n", read.getSpec().getShape(0), read.getVersion().getParams());
    checksum.update(params.data());

    changeHead(net);

    var header =
        ForwardHeader.newBuilder()
            .addOutputs("out")
            .addInputs(IMAGES)
            .setTraining(true)
            .setTape(true);
    var logits = net.forward(header, pixels);
    checksum.update(logits.data());

    // The gradient of half the sum of the squared logits is the logits.
    var result = logits.first().getHeader();
    var grads = net.backward(result.getTapeId(), result.getOutputs(0), logits.data());
    System.out.println("gradients:  " + grads.first().getHeader().getGrads().getSpec().getShape(0));
    checksum.update(grads.data());

    System.out.println("sha256:     " + HexFormat.of().formatHex(checksum.digest()));
  }

  /** The bytes of eight images of made-up pixels. */
  private static byte[] pixels() {
    var pixels = new byte[TensorStream.sizeBytes(IMAGES)];
    for (int i = 0; i < pixels.length; ++i) {
      pixels[i] = (byte) (i * 7919);
    }
    return pixels;
  }

  /**
   * Halves the classifier's parameters, and is refused when it writes them a second time onto the
   * version that it read.
   */
  private static void changeHead(Backbone net) throws InterruptedException, StatusException {
    var received = net.getParams(Backbone.HEAD);
    var read = received.first().getHeader();
    var values = ByteBuffer.wrap(received.data()).order(ByteOrder.LITTLE_ENDIAN);
    for (int at = 0; at < values.capacity(); at += Float.BYTES) {
      values.putFloat(at, values.getFloat(at) / 2);
    }
    var written = net.setHead(read.getSpec(), received.data(), read.getVersion());
    System.out.printf(
        "head:       %d halved, version %d%n", read.getSpec().getShape(0), written.getParams());

    try {
      net.setHead(read.getSpec(), received.data(), read.getVersion());
    } catch (StatusException error) {
      if (reasonOf(error) != ErrorReason.ERROR_REASON_STALE_VERSION) {
        throw error;
      }
      System.out.println("again:      refused, " + reasonOf(error));
      return;
    }
    throw Status.INTERNAL.withDescription("a stale version was accepted").asException();
  }

  /** The machine-readable reason of a call that failed. */
  private static ErrorReason reasonOf(StatusException error) {
    for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
      try {
        if (detail.is(ErrorDetail.class)) {
          return detail.unpack(ErrorDetail.class).getReason();
        }
      } catch (InvalidProtocolBufferException unreadable) {
        break;
      }
    }
    return ErrorReason.ERROR_REASON_UNSPECIFIED;
  }
}
