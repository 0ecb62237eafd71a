/** How this program makes calls: each with a deadline and the program's session. */

import { randomUUID } from "node:crypto";
import { type CallOptions, Metadata, type ServiceError, status } from "@grpc/grpc-js";

import { ErrorDetail, ErrorReason, StatusDetails } from "./generated/backboned/v1/error.js";

const TIMEOUT_MS = 60_000;

/** Variables like http_proxy would send calls to this machine through a proxy, too. */
export const CHANNEL = { "grpc.enable_http_proxy": 0 };

/** What a session left is dropped by the server in the end. */
export const metadata = new Metadata();
metadata.set("backboned-session", randomUUID());

/** The options of a call that begins now. */
export function options(): Partial<CallOptions> {
  return { deadline: Date.now() + TIMEOUT_MS };
}

type Callback<A> = (error: ServiceError | null, answer: A) => void;

/** Turns the callback of a call with one answer into a promise. */
export function answer<A>(start: (callback: Callback<A>) => unknown): Promise<A> {
  return new Promise((resolve, reject) => {
    start((error, value) => (error ? reject(error) : resolve(value)));
  });
}

/** Whether something that was thrown is a call that failed. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/** The machine-readable reason of a call that failed. */
export function reasonOf(error: ServiceError): ErrorReason {
  const [trailer] = error.metadata.get("grpc-status-details-bin");
  if (!(trailer instanceof Buffer)) return ErrorReason.ERROR_REASON_UNSPECIFIED;
  const [detail] = StatusDetails.decode(trailer).details;
  return detail ? ErrorDetail.decode(detail.value).reason : ErrorReason.ERROR_REASON_UNSPECIFIED;
}

/** What went wrong, as one sentence. */
export function sentence(error: unknown): string {
  if (isServiceError(error)) return `${status[error.code]}: ${error.details}`;
  return error instanceof Error ? error.message : String(error);
}
