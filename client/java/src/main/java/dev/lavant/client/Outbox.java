package dev.lavant.client;

import com.google.protobuf.CodedOutputStream;
import dev.lavant.v1.BatchReceipt;
import dev.lavant.v1.Event;
import dev.lavant.v1.ProducerBatch;
import dev.lavant.v1.PublishEventsRequest;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Queue of events that are not durable: it numbers them, forms batches of them, and keeps each batch until a receipt covers it.
 * It makes no calls and has no lock: its publisher has.
 *
 * <p>Events are serialized when they are put in, and batches when they are cut: a batch is resent byte for byte, which protobuf
 * does not promise of a message that is serialized again.
 */
final class Outbox {
    private static final int MAX_BATCH_EVENTS = 1_000;
    private static final int MAX_EVENT_BYTES = 1 << 20;
    private static final int MAX_BATCH_BYTES = MAX_EVENT_BYTES - (64 << 10); // less what a batch's own fields may take
    private static final int FULL_EVENTS = 250;
    private static final int FULL_BYTES = 128 << 10;
    private static final int MAX_IN_FLIGHT = 4;
    private static final int LENGTH_DELIMITED = 2; // the wire type of messages

    /** One batch, as a whole request. */
    private record Batch(byte[] request, int bytes, long first, long last) {}

    private final ProducerBatch.Builder address; // without events; create until the first receipt
    private final Deque<byte[]> queued = new ArrayDeque<>(); // events as fields of a batch
    private final List<Batch> kept = new ArrayList<>(); // without a receipt
    private int queuedBytes;
    private int keptBytes;
    private int sent; // how many kept batches were sent on the present call
    private long next = 1; // number of the first queued event
    private long durable; // number of the last durable event
    private BatchReceipt receipt = BatchReceipt.getDefaultInstance();

    /** Create one for the batches of a run's producer. */
    Outbox(ProducerBatch address) {
        this.address = address.toBuilder();
    }

    /** Queue an event, and return its number. Throws IllegalArgumentException for one that no batch can hold. */
    long put(Event event) {
        int size = event.getSerializedSize();
        if (size > MAX_EVENT_BYTES) {
            throw new IllegalArgumentException(
                    "an event has %d bytes, and at most %d can be published".formatted(size, MAX_EVENT_BYTES));
        }
        byte[] field = new byte[CodedOutputStream.computeMessageSize(ProducerBatch.EVENTS_FIELD_NUMBER, event)];
        try {
            CodedOutputStream.newInstance(field).writeMessage(ProducerBatch.EVENTS_FIELD_NUMBER, event);
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
        queued.add(field);
        queuedBytes += field.length;
        return next + queued.size() - 1;
    }

    /** Return the bytes of all events that are not durable. */
    int bytes() {
        return queuedBytes + keptBytes;
    }

    boolean isEmpty() {
        return queued.isEmpty() && kept.isEmpty();
    }

    long durable() {
        return durable;
    }

    /** Return the receipt of the last batch that was stored; the default instance before. */
    BatchReceipt receipt() {
        return receipt;
    }

    boolean hasReceipt() {
        return receipt.getLastProducerSequence() > 0;
    }

    /**
     * Return the request to send now; null for none. First those of a call that was cut, then new ones. With nothing in flight
     * all that is queued is sent; after other batches only a full one, so that a busy producer makes large ones.
     */
    byte[] nextRequest() {
        if (sent == kept.size()) {
            boolean isFull = queued.size() >= FULL_EVENTS || queuedBytes >= FULL_BYTES;
            if (queued.isEmpty() || kept.size() >= (isFull ? MAX_IN_FLIGHT : 1)) {
                return null;
            }
            cut();
        }
        return kept.get(sent++).request;
    }

    private void cut() {
        List<byte[]> events = new ArrayList<>();
        int size = 0;
        while (!queued.isEmpty()
                && events.size() < MAX_BATCH_EVENTS
                && (events.isEmpty() || size + queued.element().length <= MAX_BATCH_BYTES)) {
            size += queued.element().length;
            events.add(queued.remove());
        }
        long last = next + events.size() - 1;
        kept.add(new Batch(request(events, size, next), size, next, last));
        queuedBytes -= size;
        keptBytes += size;
        next = last + 1;
    }

    /** Return a request with an empty batch. */
    byte[] heartbeat() {
        return request(List.of(), 0, 0);
    }

    private byte[] request(List<byte[]> events, int size, long first) {
        byte[] head = address.setFirstProducerSequence(first).build().toByteArray();
        int length = head.length + size;
        int tag = PublishEventsRequest.BATCHES_FIELD_NUMBER;
        byte[] request = new byte
                [CodedOutputStream.computeTagSize(tag) + CodedOutputStream.computeUInt32SizeNoTag(length) + length];
        CodedOutputStream output = CodedOutputStream.newInstance(request);
        try {
            output.writeTag(tag, LENGTH_DELIMITED);
            output.writeUInt32NoTag(length);
            output.writeRawBytes(head);
            for (byte[] event : events) {
                output.writeRawBytes(event);
            }
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
        return request;
    }

    /** Drop what a receipt covers, and return whether that was anything. */
    boolean acknowledge(BatchReceipt receipt) {
        address.clearCreate();
        int dropped = 0;
        for (Batch batch : kept) {
            if (batch.last > receipt.getLastProducerSequence()) {
                break;
            }
            keptBytes -= batch.bytes;
            durable = batch.last;
            dropped++;
        }
        if (dropped == 0) {
            return false;
        }
        kept.subList(0, dropped).clear();
        sent = Math.max(0, sent - dropped);
        this.receipt = receipt;
        return true;
    }

    /** Send all kept batches again, since the call that carried them ended. */
    void rewind() {
        sent = 0;
    }

    /** Return whether a batch that begins with a number is kept. */
    boolean holds(long first) {
        return kept.stream().anyMatch(batch -> batch.first == first);
    }

    /** Forget all events, and return how many were not durable. */
    long drop() {
        long count = queued.size()
                + kept.stream().mapToLong(batch -> batch.last - batch.first + 1).sum();
        queued.clear();
        kept.clear();
        queuedBytes = keptBytes = sent = 0;
        return count;
    }
}
