import { create } from "@bufbuild/protobuf";
import type { Connection } from "../calls.js";
import type { CallSlot } from "../channels.js";
import { LavantError } from "../errors.js";
import type { Event } from "../gen/lavant/v1/event_pb.js";
import {
  type BatchAnswer,
  type BatchReceipt,
  EventService,
  type ProducerBatch,
  type PublishEventsRequest,
  PublishEventsRequestSchema,
} from "../gen/lavant/v1/event_service_pb.js";
import type { RunSettings } from "../gen/lavant/v1/run_pb.js";
import { fromCall, fromRejection, isCut } from "../status.js";
import { Backoff, milliseconds, sleep } from "../time.js";
import { CancelRequested, isTransient, Retry } from "./answers.js";
import { type EventInit, eventOf } from "./events.js";
import { Gate } from "./gate.js";
import { Outbox } from "./outbox.js";

export interface PublishOptions {
  /** Settings to create the run with, in the commit of its first batch. Absent: the run exists. */
  create?: RunSettings | undefined;
  /** ID of the producer. Default: a new random one. */
  producerId?: string | undefined;
  /** Incarnation of the producer: higher than that of an earlier process that used the same ID. Default 0. */
  producerEpoch?: bigint | undefined;
  /** Bytes of events that may wait for the server. Default 16 MiB. */
  maxQueueBytes?: number | undefined;
}

const HEARTBEAT_MS = 15_000;
const ANSWER_TIMEOUT_MS = 15_000;
const GAPS_WITHOUT_PROGRESS = 5;

/**
 * Publishes events of one run exactly once, over as many PublishEvents calls as needed: "Publishing" of docs/protocol.md,
 * step by step. A server that is out of reach does not fail it; what it refuses for good does.
 */
export class Publisher {
  /** Aborts when somebody asks to cancel the run; its reason is a CancelRequested. */
  readonly cancelled: AbortSignal;
  /** Aborts when events will not be stored any more; its reason is `failure`. */
  readonly failed: AbortSignal;
  /** Why events will not be stored any more; absent while they will. */
  failure: LavantError | undefined;
  /** Receipt of the last batch that was stored; absent before. */
  receipt: BatchReceipt | undefined;

  readonly #connection: Connection;
  readonly #runId: string;
  readonly #outbox: Outbox;
  readonly #heartbeatMs: number;
  readonly #changed = new Gate(); // by the application: events were put, or it is closing
  readonly #answered = new Gate(); // by the server, or a failure
  readonly #cancel = new AbortController();
  readonly #failed = new AbortController();
  readonly #closed = new AbortController();
  #isFinishing = false;
  #isRunning = false;
  #unansweredSince: number | undefined;
  #gaps = 0;

  constructor(connection: Connection, runId: string, options: PublishOptions = {}) {
    this.#connection = connection;
    this.#runId = runId;
    this.cancelled = this.#cancel.signal;
    this.failed = this.#failed.signal;
    const timeoutMs = milliseconds(options.create?.producerTimeout) || Number.POSITIVE_INFINITY;
    this.#heartbeatMs = Math.min(HEARTBEAT_MS, timeoutMs / 3);
    this.#outbox = new Outbox({
      runId,
      producerId: options.producerId ?? crypto.randomUUID(),
      producerEpoch: options.producerEpoch ?? 0n,
      settings: options.create,
      maxBytes: options.maxQueueBytes ?? 16 << 20,
    });
  }

  /** Queue events, and return. IDs and times that are absent are set. Throws the failure, if there was one. */
  put(...events: readonly (Event | EventInit)[]): void {
    if (this.failure !== undefined) throw this.failure;
    this.#outbox.put(events.map(eventOf));
    this.#changed.open();
    if (!this.#isRunning) {
      this.#isRunning = true;
      void this.#run();
    }
  }

  /** Wait until the queue takes further events. */
  async ready(): Promise<void> {
    while (!this.#outbox.hasRoom && this.failure === undefined) await this.#answered.wait();
  }

  /** Wait until all events that were put are durable, and return the number of the last one. Throws the failure. */
  async flush(): Promise<bigint> {
    const last = this.#outbox.last;
    while (this.#outbox.durable < last) {
      if (this.failure !== undefined) throw this.failure;
      await this.#answered.wait();
    }
    return last;
  }

  /** Wait until all events are durable, and end the call. Put the run's last event before. Throws the failure. */
  async finish(): Promise<void> {
    await this.flush();
    this.#isFinishing = true;
    this.#changed.open();
  }

  /** End the call at once; events that are not durable may be lost. */
  close(): void {
    if (!this.#isFinishing) this.#fail(new LavantError("the publisher is closed"));
    this.#closed.abort();
    this.#changed.open();
  }

  async #run(): Promise<void> {
    const { channels, closer, credentials } = this.#connection;
    const forget = closer.add(() => this.close());
    const backoff = new Backoff();
    let avoid: string | undefined;
    while (!this.#isFinishing && this.failure === undefined) {
      this.#outbox.rewind();
      const call = new AbortController();
      const stop = () => call.abort();
      this.#closed.signal.addEventListener("abort", stop, { once: true });
      const silence = this.#watch(call);
      let slot: CallSlot | undefined;
      let sent: Record<string, string> = {};
      let pause = 0;
      try {
        sent = await credentials.headers();
        slot = channels.long(avoid);
        avoid = slot.target;
        const { message: responses } = await slot.transport.stream(
          EventService.method.publishEvents,
          call.signal,
          undefined,
          sent,
          this.#requests(call.signal),
        );
        for await (const { answers, cancelRequests } of responses) {
          this.#unansweredSince = undefined;
          const { durable } = this.#outbox;
          for (const answer of answers) {
            this.#handle(answer);
            if (this.#outbox.durable > durable) backoff.progressed();
            credentials.accepted();
            backoff.opened();
            avoid = undefined;
          }
          for (const { runId, reason } of cancelRequests) {
            if (runId === this.#runId) this.#cancel.abort(new CancelRequested(reason));
          }
          this.#changed.open();
          this.#answered.open();
        }
        pause = backoff.afterCut(); // ended without an error: as planned, or by a proxy
      } catch (thrown) {
        const error = thrown instanceof Retry ? thrown.error : fromCall(thrown);
        if (credentials.mayRetry(error, sent)) continue;
        if (!(thrown instanceof Retry) && !isTransient(error) && !silence.isBroken && !isCut(thrown)) this.#fail(error);
        pause = backoff.afterCut(error.retryAfterMs);
      } finally {
        silence.stop();
        this.#closed.signal.removeEventListener("abort", stop);
        call.abort();
        this.#changed.open(); // ends the requests of this call
        slot?.release({ silent: silence.isBroken });
      }
      if (!this.#isFinishing && this.failure === undefined)
        await sleep(pause, this.#closed.signal).catch(() => undefined);
    }
    forget();
  }

  /** Yield the requests of one call: what is kept, then what is queued, and an empty batch in silence. */
  async *#requests(signal: AbortSignal): AsyncGenerator<PublishEventsRequest> {
    let isFirst = true;
    while (!signal.aborted) {
      const batches: ProducerBatch[] = [];
      for (let batch = this.#outbox.next(); batch !== undefined; batch = this.#outbox.next()) batches.push(batch);
      // A call without a batch of the run would not receive its cancel requests.
      if (batches.length === 0 && isFirst) batches.push(this.#outbox.heartbeat());
      isFirst = false;
      if (batches.length > 0) {
        this.#unansweredSince ??= Date.now();
        yield create(PublishEventsRequestSchema, { batches });
        continue;
      }
      if (this.#isFinishing) return;
      const wasNotified = await this.#changed.wait(this.#heartbeatMs);
      isFirst = !wasNotified;
    }
  }

  #handle(answer: BatchAnswer): void {
    if (answer.outcome.case === "receipt") {
      const receipt = answer.outcome.value;
      this.#outbox.acknowledge(receipt.lastProducerSequence);
      this.#gaps = 0;
      if (receipt.lastSequence > 0n) this.receipt = receipt;
    } else if (answer.outcome.case === "rejection") {
      const error = fromRejection(answer.outcome.value);
      if (error.reason === "PRODUCER_GAP") {
        if (error.gap.followsRejection) return; // the earlier rejection decides
        this.#gaps += 1;
        if (this.#outbox.keeps(error.gap.expected) && this.#gaps <= GAPS_WITHOUT_PROGRESS) throw new Retry(error);
      }
      if (isTransient(error)) throw new Retry(error);
      this.#fail(error);
      throw error;
    }
  }

  /** Cut a call whose batches get no answer: a dead connection reports nothing. */
  #watch(call: AbortController): { isBroken: boolean; stop: () => void } {
    this.#unansweredSince = undefined;
    const state = { isBroken: false, stop: () => clearInterval(timer) };
    const timer = setInterval(() => {
      if (this.#unansweredSince === undefined || Date.now() - this.#unansweredSince < ANSWER_TIMEOUT_MS) return;
      state.isBroken = true;
      call.abort();
    }, 1_000);
    return state;
  }

  #fail(error: LavantError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.#failed.abort(error);
    this.#answered.open();
  }
}
