import type { LavantError } from "../errors.js";

/** Somebody asked to cancel the run. `message` is the reason that was given; it may be empty. */
export class CancelRequested extends Error {
  override readonly name = "CancelRequested";
}

/** A batch was rejected, and sending everything again over another call may help. */
export class Retry extends Error {
  constructor(readonly error: LavantError) {
    super(error.message);
  }
}

/** Return whether the same batches may be accepted later. */
export function isTransient(error: LavantError): boolean {
  if (error.reason === "QUOTA_EXCEEDED") return error.retryAfterMs !== undefined;
  return error.reason === "UNAVAILABLE" || error.reason === "SLOW_CONSUMER";
}
