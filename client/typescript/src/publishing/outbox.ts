import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { InvalidField, ProducerOverloaded } from "../errors.js";
import { type Event, EventSchema } from "../gen/lavant/v1/event_pb.js";
import { type ProducerBatch, ProducerBatchSchema } from "../gen/lavant/v1/event_service_pb.js";
import type { RunSettings } from "../gen/lavant/v1/run_pb.js";

const MAX_BATCH_EVENTS = 1_000;
const MAX_BATCH_BYTES = (1 << 20) - (1 << 16); // less what a batch's own fields and the framing of its events may take
const FULL_EVENTS = 250;
const FULL_BYTES = 128 * 1024;
const MAX_IN_FLIGHT = 4;
const EVENTS_FIELD = ProducerBatchSchema.field.events.number;

export interface OutboxOptions {
  readonly runId: string;
  readonly producerId: string;
  readonly producerEpoch: bigint;
  readonly settings: RunSettings | undefined;
  readonly maxBytes: number;
}

interface Sent {
  readonly batch: ProducerBatch;
  readonly last: bigint;
  readonly bytes: number;
}

/**
 * Numbers events, forms batches of them, and keeps each batch until its receipt, without I/O.
 *
 * A batch is cut at once if none is in flight, else when it is full: events that arrive while the last batch is in flight
 * share the next one. Until the first receipt, batches have the run's settings, by which the server creates it. A batch
 * never changes once it is cut: after a cut connection it is sent again byte for byte.
 */
export class Outbox {
  /** Number of the last event that was put. */
  last = 0n;
  /** Number of the last event that is durable. */
  durable = 0n;

  readonly #options: OutboxOptions;
  #settings: RunSettings | undefined;
  #queued: Uint8Array[] = [];
  #queuedBytes = 0;
  #kept: Sent[] = [];
  #keptBytes = 0;
  #sent = 0; // how many of the kept batches the present call has

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#settings = options.settings;
  }

  get isEmpty(): boolean {
    return this.#queued.length === 0 && this.#kept.length === 0;
  }

  get hasRoom(): boolean {
    return this.#queuedBytes + this.#keptBytes < this.#options.maxBytes;
  }

  /** Take events, all or none. Throws InvalidField for one that no batch can hold, ProducerOverloaded without room. */
  put(events: readonly Event[]): void {
    if (!this.hasRoom) {
      throw new ProducerOverloaded(
        `${this.#queuedBytes + this.#keptBytes} bytes wait for the server: await ready() before you publish more, or raise maxQueueBytes`,
      );
    }
    const encoded = events.map((event) => new BinaryWriter().bytes(toBinary(EventSchema, event)).finish());
    for (const bytes of encoded) {
      if (bytes.length > MAX_BATCH_BYTES) {
        throw new InvalidField(`an event has ${bytes.length} bytes; the limit is ${MAX_BATCH_BYTES}`);
      }
    }
    for (const bytes of encoded) {
      this.#queued.push(bytes);
      this.#queuedBytes += bytes.length;
    }
    this.last += BigInt(encoded.length);
  }

  /** Return the batch to send now, if any: first those of a call that was cut, then new ones. */
  next(): ProducerBatch | undefined {
    if (this.#sent === this.#kept.length && !this.#cut()) return undefined;
    this.#sent += 1;
    return this.#kept[this.#sent - 1]?.batch;
  }

  /** Return an empty batch, which proves that the producer lives. */
  heartbeat(): ProducerBatch {
    return this.#batch(0n, []);
  }

  /** Drop what is durable. */
  acknowledge(lastProducerSequence: bigint): void {
    this.#settings = undefined;
    while (this.#kept[0] !== undefined && this.#kept[0].last <= lastProducerSequence) {
      const { bytes, last } = this.#kept.shift() as Sent;
      this.#keptBytes -= bytes;
      this.durable = last;
      this.#sent = Math.max(0, this.#sent - 1);
    }
  }

  /** Send all batches without a receipt again, because the call that carried them ended. */
  rewind(): void {
    this.#sent = 0;
  }

  /** Return whether a batch that begins with this number can still be sent. */
  keeps(first: bigint): boolean {
    return this.#kept.some(({ batch }) => batch.firstProducerSequence === first);
  }

  #cut(): boolean {
    const isFull = this.#queued.length >= FULL_EVENTS || this.#queuedBytes >= FULL_BYTES;
    if (this.#queued.length === 0 || this.#kept.length >= (isFull ? MAX_IN_FLIGHT : 1)) return false;
    let count = 0;
    let bytes = 0;
    for (const one of this.#queued) {
      if (count === MAX_BATCH_EVENTS || (count > 0 && bytes + one.length > MAX_BATCH_BYTES)) break;
      count += 1;
      bytes += one.length;
    }
    const first = this.last - BigInt(this.#queued.length) + 1n;
    const batch = this.#batch(first, this.#queued.splice(0, count));
    this.#queuedBytes -= bytes;
    this.#keptBytes += bytes;
    this.#kept.push({ batch, last: first + BigInt(count) - 1n, bytes });
    return true;
  }

  #batch(first: bigint, events: readonly Uint8Array[]): ProducerBatch {
    const { runId, producerId, producerEpoch } = this.#options;
    const batch = create(ProducerBatchSchema, { runId, producerId, producerEpoch, firstProducerSequence: first });
    if (this.#settings !== undefined) batch.create = this.#settings;
    // Encoded once, for the size, and written as they are: the library writes fields that it does not know unchanged.
    batch.$unknown = events.map((data) => ({ no: EVENTS_FIELD, wireType: WireType.LengthDelimited, data }));
    return batch;
  }
}
