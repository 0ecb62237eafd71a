/**
 * Uses a Backboned server from Node.js.
 *
 * Usage: node dist/main.js TARGET, which is host:port or unix:/path.
 */

import { createHash } from "node:crypto";
import { credentials } from "@grpc/grpc-js";

import { BackboneServiceClient } from "./generated/backboned/v1/backbone_service.js";
import { ErrorReason } from "./generated/backboned/v1/error.js";
import {
  CreateInstanceRequest,
  InstanceServiceClient,
  type CreateInstanceResponse,
  type DeleteInstanceResponse,
  type GetServerResponse,
} from "./generated/backboned/v1/instance_service.js";
import { DataType, type TensorSpec } from "./generated/backboned/v1/tensor.js";
import { Backbone, HEAD } from "./backbone.js";
import {
  answer,
  CHANNEL,
  isServiceError,
  metadata,
  options,
  reasonOf,
  sentence,
} from "./call.js";
import { sizeBytes } from "./tensorStream.js";

const IMAGES: TensorSpec = { name: "", dtype: DataType.DATA_TYPE_UINT8, shape: [8, 3, 32, 32] };
const PIXELS = Buffer.from(Array.from({ length: sizeBytes(IMAGES) }, (_, i) => (i * 7919) % 256));

/** Makes an instance, uses it, and deletes it in any case. */
async function run(target: string): Promise<void> {
  const instances = new InstanceServiceClient(target, credentials.createInsecure(), CHANNEL);
  const backbones = new BackboneServiceClient(target, credentials.createInsecure(), CHANNEL);
  const server = await answer<GetServerResponse>((callback) =>
    instances.getServer({}, metadata, options(), callback),
  );
  console.log(`server:     ${server.version}, LibTorch ${server.torchVersion}`);

  const request = CreateInstanceRequest.fromPartial({ benchmark: "seq-cifar10", seed: 0 });
  const created = await answer<CreateInstanceResponse>((callback) =>
    instances.createInstance(request, metadata, options(), callback),
  );
  const instance = created.instance!.name;
  try {
    await use(new Backbone(backbones, instance));
  } finally {
    await answer<DeleteInstanceResponse>((callback) =>
      instances.deleteInstance(
        { instance, requestId: "", ifVersion: undefined },
        metadata,
        options(),
        callback,
      ),
    );
    instances.close();
    backbones.close();
  }
}

/** Goes through the calls; prints what they gave, and the answers' checksum. */
async function use(net: Backbone): Promise<void> {
  const checksum = createHash("sha256");

  const extracted = await net.extract(IMAGES, PIXELS);
  console.log(`features:   [${extracted.output!.shape.join(", ")}]`);
  checksum.update(extracted.data);

  const features = await net.forward({ outputs: ["features"], inputs: [IMAGES] }, PIXELS);
  checksum.update(features.data);

  const params = await net.getParams();
  const { spec, version } = params.header;
  console.log(`parameters: ${spec!.shape[0]} of version ${version!.params}`);
  checksum.update(params.data);

  await changeHead(net);

  const header = { outputs: ["out"], inputs: [IMAGES], training: true, tape: true };
  const out = await net.forward(header, PIXELS);
  checksum.update(out.data);

  // The gradient of half the sum of the squared logits is the logits.
  const grads = await net.backward(out.header.tapeId, out.header.outputs[0]!, out.data);
  console.log(`gradients:  ${grads.header.grads!.spec!.shape[0]}`);
  checksum.update(grads.data);

  console.log(`sha256:     ${checksum.digest("hex")}`);
}

/**
 * Halves the classifier's parameters, and is refused when it writes them a second time
 * onto the version that it read.
 */
async function changeHead(net: Backbone): Promise<void> {
  const { header, data } = await net.getParams(HEAD);
  for (let at = 0; at < data.length; at += 4) {
    data.writeFloatLE(data.readFloatLE(at) / 2, at);
  }
  const written = await net.setHead(header.spec!, data, header.version!);
  console.log(`head:       ${header.spec!.shape[0]} halved, version ${written.version!.params}`);

  try {
    await net.setHead(header.spec!, data, header.version!);
  } catch (error) {
    if (!isServiceError(error)) throw error;
    const reason = reasonOf(error);
    if (reason !== ErrorReason.ERROR_REASON_STALE_VERSION) throw error;
    console.log(`again:      refused, ${ErrorReason[reason]}`);
    return;
  }
  throw new Error("a stale version was accepted");
}

const [target, ...more] = process.argv.slice(2);
if (target === undefined || more.length > 0) {
  console.error("usage: main.js TARGET (host:port or unix:/path)");
  process.exit(2);
}
try {
  await run(target);
} catch (error) {
  console.error(`example: ${sentence(error)}`);
  process.exit(1);
}
