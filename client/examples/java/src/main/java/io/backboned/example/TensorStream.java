package io.backboned.example;

import com.google.protobuf.Message;
import com.google.protobuf.UnsafeByteOperations;
import io.backboned.v1.Chunk;
import io.backboned.v1.TensorSpec;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.util.List;
import java.util.function.BiFunction;
import java.util.function.Function;

/** Tensors as streams of messages: a header, then chunks of the tensors' bytes. */
final class TensorStream {
  /** How much data a message carries; the server takes at most 2 MiB. */
  private static final int CHUNK_BYTES = 1 << 20;

  /** An answer: its first message, which has the header, and the tensors back to back. */
  record Received<M>(M first, byte[] data) {}

  private TensorStream() {}

  /**
   * Sends a request: the header, which is in {@code request}, with the first chunk, then the
   * others. {@code build} puts a chunk into a message. {@code data} must not change until the call
   * has ended.
   */
  static <B extends Message.Builder, M> void send(
      BlockingClientCall<M, ?> call, B request, BiFunction<B, Chunk, M> build, byte[] data)
      throws InterruptedException, StatusException {
    int begin = 0;
    do {
      int size = Math.min(CHUNK_BYTES, data.length - begin);
      var bytes = UnsafeByteOperations.unsafeWrap(data, begin, size);
      var chunk = Chunk.newBuilder().setOffset(begin).setData(bytes).build();
      call.write(build.apply(request, chunk));
      request.clear();
      begin += size;
    } while (begin < data.length);
    call.halfClose();
  }

  /**
   * Reads an answer to its end. {@code specsOf} gives the specs of the tensors that the header in
   * the first message announces.
   */
  static <M> Received<M> receive(
      BlockingClientCall<?, M> call,
      Function<M, List<TensorSpec>> specsOf,
      Function<M, Chunk> chunkOf)
      throws InterruptedException, StatusException {
    M first = call.read();
    if (first == null) {
      throw malformed("the answer is empty");
    }
    var data = new byte[specsOf.apply(first).stream().mapToInt(TensorStream::sizeBytes).sum()];
    int received = 0;
    for (M message = first; message != null; message = call.read()) {
      Chunk chunk = chunkOf.apply(message);
      int size = chunk.getData().size();
      if (size > 0 && chunk.getOffset() != received) {
        throw malformed(
            "a chunk starts at byte %d, expected byte %d".formatted(chunk.getOffset(), received));
      }
      if (size > data.length - received) {
        throw malformed("a chunk of %d bytes passes byte %d".formatted(size, data.length));
      }
      chunk.getData().copyTo(data, received);
      received += size;
    }
    if (received < data.length) {
      throw malformed("the answer ends at byte %d of %d".formatted(received, data.length));
    }
    return new Received<>(first, data);
  }

  /** The number of bytes of a tensor. */
  static int sizeBytes(TensorSpec spec) {
    int size =
        switch (spec.getDtype()) {
          case DATA_TYPE_FLOAT64, DATA_TYPE_INT64 -> 8;
          case DATA_TYPE_FLOAT32 -> 4;
          case DATA_TYPE_FLOAT16, DATA_TYPE_BFLOAT16 -> 2;
          case DATA_TYPE_UINT8 -> 1;
          default -> throw new IllegalArgumentException("no element type " + spec.getDtype());
        };
    for (long dimension : spec.getShapeList()) {
      size = Math.toIntExact(size * dimension); // An array holds at most 2 GiB.
    }
    return size;
  }

  private static StatusException malformed(String sentence) {
    return Status.DATA_LOSS.withDescription(sentence).asException();
  }
}
