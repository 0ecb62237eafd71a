import {
  BackboneServiceClient,
  BackwardHeader,
  type BackwardResult,
  type ExtractResponse,
  ExtractRequest,
  ForwardHeader,
  type ForwardResult,
  GetParamsRequest,
  type GetParamsResult,
  SetParamsHeader,
  type SetParamsResponse,
} from "./generated/backboned/v1/backbone_service.js";
import type { Version } from "./generated/backboned/v1/instance.js";
import type { Selection } from "./generated/backboned/v1/selection.js";
import type { TensorSpec } from "./generated/backboned/v1/tensor.js";
import { answer, metadata, options } from "./call.js";
import { receive, send } from "./tensorStream.js";

/** The classifier's parameters. */
export const HEAD: Selection = { globs: ["classifier.*"], range: undefined };

/** One instance: the calls of this example. */
export class Backbone {
  constructor(
    private readonly client: BackboneServiceClient,
    private readonly instance: string,
  ) {}

  /** Gives features of images, in one message each way. */
  extract(input: TensorSpec, data: Buffer): Promise<ExtractResponse> {
    const request = ExtractRequest.fromPartial({
      instance: this.instance,
      input,
      data,
      allowMerge: false,
    });
    return answer((callback) => this.client.extract(request, metadata, options(), callback));
  }

  /** Runs a forward; gives its result and the bytes of its outputs. */
  forward(
    header: Partial<ForwardHeader>,
    pixels: Buffer,
  ): Promise<{ header: ForwardResult; data: Buffer }> {
    const whole = ForwardHeader.fromPartial({ ...header, instance: this.instance });
    const call = this.client.forward(metadata, options());
    send(call, whole, pixels);
    return receive(call, (result: ForwardResult) => result.outputs);
  }

  /** Gives the flat gradient of the forward that the tape kept. */
  backward(
    tapeId: string,
    output: TensorSpec,
    gradient: Buffer,
  ): Promise<{ header: BackwardResult; data: Buffer }> {
    const header = BackwardHeader.fromPartial({
      instance: this.instance,
      tapes: [{ tapeId, gradients: [output] }],
      returnGrads: true,
    });
    const call = this.client.backward(metadata, options());
    send(call, header, gradient);
    return receive(call, (result: BackwardResult) => [result.grads!.spec!]);
  }

  /** Reads the selected parameters, or all. */
  getParams(selection?: Selection): Promise<{ header: GetParamsResult; data: Buffer }> {
    const request = GetParamsRequest.fromPartial({ instance: this.instance, selection });
    const call = this.client.getParams(request, metadata, options());
    return receive(call, (result: GetParamsResult) => [result.spec!]);
  }

  /** Replaces the classifier if the parameters are still of that version. */
  setHead(spec: TensorSpec, values: Buffer, version: Version): Promise<SetParamsResponse> {
    const header = SetParamsHeader.fromPartial({
      instance: this.instance,
      selection: HEAD,
      ifVersion: { uid: version.uid, params: version.params },
      spec,
    });
    return answer((callback) => {
      const call = this.client.setParams(metadata, options(), callback);
      send(call, header, values);
    });
  }
}
