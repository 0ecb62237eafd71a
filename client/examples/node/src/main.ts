/**
 * Uses a Backboned server from Node.js.
 *
 * Usage: node dist/main.js TARGET, which is host:port or unix:/path. --ca FILE makes the
 * connection one of TLS; --certificate FILE and --key FILE, and --token-file FILE, are what
 * the client shows.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { type ChannelCredentials, credentials } from "@grpc/grpc-js";

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

/** The files that the command line names. */
interface Files {
  ca?: string;
  certificate?: string;
  key?: string;
  "token-file"?: string;
}

/** Gives TLS if there is a CA. */
function channelCredentials({ ca, certificate, key }: Files): ChannelCredentials {
  if (ca === undefined) return credentials.createInsecure();
  const read = (file?: string) => (file === undefined ? null : readFileSync(file));
  return credentials.createSsl(read(ca), read(key), read(certificate));
}

/**
 * Lets the token go with each call: through TLS, or to a Unix socket, since whoever reads it
 * can use it.
 */
function showToken(target: string, { ca, "token-file": file }: Files): void {
  if (file === undefined) return;
  if (ca === undefined && !target.startsWith("unix:")) {
    throw new Error("a token needs --ca, or a target unix:/path");
  }
  metadata.set("authorization", `Bearer ${readFileSync(file, "utf8").trim()}`);
}

/** Makes an instance, uses it, and deletes it in any case. */
async function run(target: string, files: Files): Promise<void> {
  showToken(target, files);
  const shown = channelCredentials(files);
  const instances = new InstanceServiceClient(target, shown, CHANNEL);
  const backbones = new BackboneServiceClient(target, shown, CHANNEL);
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

/** Reads the command line: one target, and the files. */
function parse(): { target: string; files: Files } {
  const file = { type: "string" } as const;
  const { values, positionals } = parseArgs({
    options: { ca: file, certificate: file, key: file, "token-file": file },
    allowPositionals: true,
  });
  const [target, ...more] = positionals;
  if (target === undefined || more.length > 0) throw new Error("one target is needed");
  return { target, files: values };
}

let parsed;
try {
  parsed = parse();
} catch {
  console.error(
    "usage: main.js [--ca FILE] [--certificate FILE --key FILE] [--token-file FILE] " +
      "TARGET (host:port or unix:/path)",
  );
  process.exit(2);
}
try {
  await run(parsed.target, parsed.files);
} catch (error) {
  console.error(`example: ${sentence(error)}`);
  process.exit(1);
}
