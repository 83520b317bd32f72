import { create } from "@bufbuild/protobuf";
import type { ErrorReason } from "./gen/lavant/v1/error_pb.js";
import type { RunFinished } from "./gen/lavant/v1/run_pb.js";
import { RunFinishedSchema, RunState } from "./gen/lavant/v1/run_pb.js";

/** Name of an ErrorReason of the contract; "" if no server reported the error. */
export type Reason = keyof typeof ErrorReason | "";

/** A field that the server refused. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** Further values of an error. */
export interface ErrorDetails {
  readonly reason?: string;
  readonly code?: string;
  readonly retryAfterMs?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  readonly expectedProducerSequence?: bigint;
  readonly followsRejection?: boolean;
  readonly cause?: unknown;
}

/**
 * Base of all errors that the client throws for a run, a stream or a call.
 *
 * Test the class, or `reason`: new servers may report reasons that this version does not know.
 */
export class LavantError extends Error {
  /** Name of the contract's ErrorReason, such as "RUN_NOT_FOUND"; "" if no server reported the error. */
  readonly reason: Reason | (string & {});
  /** Name of the gRPC status code, such as "NOT_FOUND"; "" if there was none. */
  readonly code: string;
  /** Delay in milliseconds that the server asks for before a retry; absent if it asks for none. */
  readonly retryAfterMs: number | undefined;
  /** Further values of the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Fields that were refused, for INVALID_FIELD. */
  readonly violations: readonly FieldViolation[];
  /** @internal */
  readonly gap: { readonly expected: bigint; readonly followsRejection: boolean };

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.reason = details.reason ?? "";
    this.code = details.code ?? "";
    this.retryAfterMs = details.retryAfterMs;
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.gap = {
      expected: details.expectedProducerSequence ?? 0n,
      followsRejection: details.followsRejection ?? false,
    };
  }
}

/** Base of errors that end a stream before what was asked for; the run may continue. */
export class StreamError extends LavantError {}
/** No server could be reached for `reconnectTimeoutMs`. Open a new stream with the resume token. */
export class StreamCut extends StreamError {}
/** Another session holds the lease of this consumer. Use another one, wait, or take over. */
export class ConsumerBusy extends StreamError {}
/** A newer stream of this consumer was opened. Stop. */
export class StreamDisplaced extends StreamError {}
/** A newer call of this session was opened. Stop. */
export class StaleAttempt extends StreamError {}
/** The client read more slowly than the server waits. Streams resume after it by themselves. */
export class SlowConsumer extends StreamError {}
/** The resume token is damaged, or of another run. A stream without it starts from the beginning. */
export class ResumeTokenInvalid extends StreamError {}
/** The token was issued before the store was restored. A stream without it starts from the beginning. */
export class StoreEpochChanged extends StreamError {}

/** Base of errors after which events of a run will not be stored. */
export class ProducerError extends LavantError {}
/** Events are missing between those that are stored and those that this producer still has. */
export class ProducerGap extends ProducerError {}
/** A newer epoch of this producer publishes. */
export class ProducerFenced extends ProducerError {}
/** A number is stored with other content. */
export class ProducerConflict extends ProducerError {}
/** More bytes wait for the server than `maxQueueBytes`. */
export class ProducerOverloaded extends ProducerError {}

export class RunNotFound extends LavantError {}
export class RunExists extends LavantError {}
export class RunSealed extends LavantError {}
export class RunNotEnded extends LavantError {}
export class InvalidField extends LavantError {}
export class QuotaExceeded extends LavantError {}
export class Unauthenticated extends LavantError {}
/** The credential does not allow the call; `metadata.scope` is what it lacks. */
export class PermissionDenied extends LavantError {}
/** The server cannot be reached, or is not ready. */
export class Unavailable extends LavantError {}
export class DataLoss extends LavantError {}
/** The run had not ended after the time to wait. */
export class WaitTimeout extends LavantError {}

/** The run ended in another state than SUCCEEDED. */
export class RunNotSucceeded extends LavantError {
  readonly result: RunFinished;

  constructor(runId: string, result: RunFinished = create(RunFinishedSchema)) {
    const state = (RunState[result.state] ?? "FAILED").toLowerCase();
    super(`run ${runId} ${state}${result.error?.message ? `: ${result.error.message}` : ""}`);
    this.result = result;
  }
}

type ErrorClass = new (message: string, details?: ErrorDetails) => LavantError;

const BY_REASON: Readonly<Record<string, ErrorClass>> = {
  CONSUMER_BUSY: ConsumerBusy,
  STREAM_DISPLACED: StreamDisplaced,
  STALE_ATTEMPT: StaleAttempt,
  SLOW_CONSUMER: SlowConsumer,
  RESUME_TOKEN_INVALID: ResumeTokenInvalid,
  STORE_EPOCH_CHANGED: StoreEpochChanged,
  PRODUCER_GAP: ProducerGap,
  PRODUCER_FENCED: ProducerFenced,
  PRODUCER_CONFLICT: ProducerConflict,
  RUN_NOT_FOUND: RunNotFound,
  RUN_EXISTS: RunExists,
  RUN_SEALED: RunSealed,
  RUN_NOT_ENDED: RunNotEnded,
  INVALID_FIELD: InvalidField,
  QUOTA_EXCEEDED: QuotaExceeded,
  UNAUTHENTICATED: Unauthenticated,
  PERMISSION_DENIED: PermissionDenied,
  UNAVAILABLE: Unavailable,
  DATA_LOSS: DataLoss,
};

/** Return the error of a reason; of one that has no class, a LavantError. */
export function errorOf(message: string, details: ErrorDetails & { reason: string }): LavantError {
  return new (BY_REASON[details.reason] ?? LavantError)(message, details);
}
