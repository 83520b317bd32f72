import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { errorOf, LavantError } from "./errors.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { Status } from "./gen/google/rpc/status_pb.js";
import { ProducerGapSchema } from "./gen/lavant/v1/error_pb.js";
import { milliseconds } from "./time.js";

const DOMAIN = "lavant.dev";
const GRPC_STATUS = "grpc-status";
// What a broken HTTP/2 connection is called by gRPC in C, and by proxies.
const BROKEN = /RST_STREAM|GOAWAY|Stream removed|Internal error from Core/;
// What this library finds wrong with an answer that arrived whole: the other side is no lavant, or a newer one.
const UNREADABLE = /^(parse binary|serialize binary|unsupported content type|unsupported response|message size)/;

interface Detail {
  readonly type: string;
  readonly value: Uint8Array;
}

/** Return the LavantError of anything that a call throws. */
export function fromCall(thrown: unknown): LavantError {
  if (thrown instanceof LavantError) return thrown;
  const error = ConnectError.from(thrown);
  // Details that arrived have a type; those made on this side would have a descriptor.
  const details = error.details.filter((detail): detail is Detail => "type" in detail);
  return describe(error.code, error.rawMessage, details, error);
}

/** Return the LavantError of a rejected batch. */
export function fromRejection(status: Status): LavantError {
  const details = status.details.map((any: Any) => ({
    type: any.typeUrl.slice(any.typeUrl.lastIndexOf("/") + 1),
    value: any.value,
  }));
  return describe(status.code, status.message, details, undefined);
}

/** Return whether an error without ErrorReason means that the connection was cut: see docs/protocol.md. */
export function isCut(thrown: unknown): boolean {
  if (!(thrown instanceof ConnectError || thrown instanceof LavantError)) return false;
  if (fromCall(thrown).reason !== "") return false;
  const error = ConnectError.from(thrown);
  if (error.metadata.has(GRPC_STATUS)) return isCutStatus(error);
  // An HTTP status in place of gRPC's: proxies answer so, and only 429 and 502 to 504 pass.
  if ([...error.metadata].length > 0) return error.code === Code.Unavailable;
  // Made on this side, of a connection that failed: reset streams, closed sockets, truncated messages, missing trailers.
  return error.code !== Code.Unimplemented && !UNREADABLE.test(error.rawMessage);
}

function isCutStatus(error: ConnectError): boolean {
  switch (error.code) {
    case Code.Unavailable:
    case Code.Canceled:
    case Code.DeadlineExceeded:
      return true;
    case Code.Internal:
    case Code.Unknown:
      return BROKEN.test(error.rawMessage);
    default:
      return false;
  }
}

function describe(code: Code, message: string, details: readonly Detail[], cause: unknown): LavantError {
  const name = codeName(code);
  const info = find(details, "google.rpc.ErrorInfo", (bytes) => fromBinary(ErrorInfoSchema, bytes));
  if (info?.domain !== DOMAIN) return new LavantError(message, { code: name, cause });
  const gap = find(details, "lavant.v1.ProducerGap", (bytes) => fromBinary(ProducerGapSchema, bytes));
  const retry = find(details, "google.rpc.RetryInfo", (bytes) => fromBinary(RetryInfoSchema, bytes));
  const bad = find(details, "google.rpc.BadRequest", (bytes) => fromBinary(BadRequestSchema, bytes));
  return errorOf(message, {
    reason: info.reason,
    code: name,
    metadata: info.metadata,
    violations: bad?.fieldViolations ?? [],
    cause,
    ...(retry?.retryDelay && { retryAfterMs: milliseconds(retry.retryDelay) }),
    ...(gap && { expectedProducerSequence: gap.expectedProducerSequence, followsRejection: gap.followsRejection }),
  });
}

function find<T>(details: readonly Detail[], type: string, parse: (bytes: Uint8Array) => T): T | undefined {
  const detail = details.find((one) => one.type === type);
  return detail && parse(detail.value);
}

/** Return gRPC's name of a code: this library spells Canceled where gRPC has CANCELLED. */
function codeName(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  return (Code[code] ?? "Unknown").replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}
