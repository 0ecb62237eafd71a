/** Tensors as streams of messages: a header, then chunks of the tensors' bytes. */

import { Readable } from "node:stream";
import type { ClientWritableStream } from "@grpc/grpc-js";

import { Chunk, DataType, TensorSpec } from "./generated/backboned/v1/tensor.js";

/** A message of any stream whose header is an H. */
export interface Message<H> {
  header?: H | undefined;
  chunk?: Chunk | undefined;
}

/** How much data a message carries; the server takes at most 2 MiB. */
const CHUNK_BYTES = 1 << 20;

const ELEMENT_BYTES = new Map([
  [DataType.DATA_TYPE_FLOAT32, 4],
  [DataType.DATA_TYPE_FLOAT64, 8],
  [DataType.DATA_TYPE_FLOAT16, 2],
  [DataType.DATA_TYPE_BFLOAT16, 2],
  [DataType.DATA_TYPE_UINT8, 1],
  [DataType.DATA_TYPE_INT64, 8],
]);

/** Sends a request: the header with the first chunk, then the others. */
export function send<H>(call: ClientWritableStream<Message<H>>, header: H, data: Buffer): void {
  // pipe waits while the call takes no more, and ends it.
  Readable.from(messagesOf(header, data)).pipe(call as NodeJS.WritableStream);
}

function* messagesOf<H>(header: H, data: Buffer): Generator<Message<H>> {
  yield { header, chunk: { offset: 0, data: data.subarray(0, CHUNK_BYTES) } };
  for (let offset = CHUNK_BYTES; offset < data.length; offset += CHUNK_BYTES) {
    yield { chunk: { offset, data: data.subarray(offset, offset + CHUNK_BYTES) } };
  }
}

/**
 * Reads an answer to its end: the header, and the bytes of the tensors that `specsOf`
 * says the header announces, back to back.
 */
export async function receive<H>(
  messages: AsyncIterable<Message<H>>,
  specsOf: (header: H) => TensorSpec[],
): Promise<{ header: H; data: Buffer }> {
  let header: H | undefined;
  let data = Buffer.alloc(0);
  let received = 0;
  for await (const message of messages) {
    if (message.header !== undefined) {
      header = message.header;
      const sizes = specsOf(header).map(sizeBytes);
      data = Buffer.allocUnsafe(sizes.reduce((sum, size) => sum + size, 0));
    }
    const chunk = message.chunk;
    if (chunk === undefined || chunk.data.length === 0) continue;
    if (chunk.offset !== received) {
      throw new Error(`a chunk starts at byte ${chunk.offset}, expected byte ${received}`);
    }
    if (received + chunk.data.length > data.length) {
      throw new Error(`a chunk ends at byte ${received + chunk.data.length} of ${data.length}`);
    }
    received += chunk.data.copy(data, received);
  }
  if (header === undefined || received < data.length) {
    throw new Error(`the answer ends at byte ${received} of ${data.length}`);
  }
  return { header, data };
}

/** The number of bytes of a tensor. */
export function sizeBytes(spec: TensorSpec): number {
  const elementBytes = ELEMENT_BYTES.get(spec.dtype);
  if (elementBytes === undefined) throw new Error(`no element type ${spec.dtype}`);
  return spec.shape.reduce((size, dimension) => size * dimension, elementBytes);
}
