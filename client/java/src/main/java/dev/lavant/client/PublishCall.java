package dev.lavant.client;

import dev.lavant.v1.BatchAnswer;
import dev.lavant.v1.BatchReceipt;
import dev.lavant.v1.CancelRequest;
import dev.lavant.v1.ErrorReason;
import dev.lavant.v1.EventServiceGrpc;
import dev.lavant.v1.ProducerGap;
import dev.lavant.v1.PublishEventsResponse;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Optional;

/** One PublishEvents call: the publisher's thread sends on it, and the connection's thread takes the answers. */
final class PublishCall extends ClientCall.Listener<PublishEventsResponse> {
    private static final int GAPS_WITHOUT_PROGRESS = 5; // after which a batch is not sent again that the server misses
    private static final Duration SHORTEST_INTERVAL = Duration.ofSeconds(1);
    private static final MethodDescriptor<byte[], PublishEventsResponse> METHOD =
            EventServiceGrpc.getPublishEventsMethod().toBuilder(
                            new Serialized(),
                            EventServiceGrpc.getPublishEventsMethod().getResponseMarshaller())
                    .build();

    private final Publisher publisher;
    private final Retries retries;
    private ClientCall<byte[], PublishEventsResponse> call;
    private int awaited; // answers
    private long silentTime; // when the connection counts as dead, if an answer is awaited
    private CallException end;

    PublishCall(Publisher publisher, Retries retries) {
        this.publisher = publisher;
        this.retries = retries;
    }

    /**
     * Make the call until the publisher is done. Throws why it ended before. A call that is not the first begins with a
     * heartbeat if there is nothing to resend, so that the server knows whom to ask to cancel.
     */
    void run(boolean isFirst) {
        ConnectionPool pool = publisher.calls.pool;
        Connection connection = pool.forLongCall();
        call = connection.newCall(METHOD);
        try {
            call.start(this, publisher.calls.credential.headers());
            call.request(1);
            if (!transmit(!isFirst)) {
                pool.retire(connection);
                throw CallException.cut("no answer came in time: the connection is dead");
            }
        } finally {
            call.cancel("the client has ended the call", null); // all is durable, or the call is of no more use
            pool.release(connection);
        }
    }

    /** Send what is queued until nothing follows. Return false if no answer comes; throws why the call ended. */
    private boolean transmit(boolean beatsFirst) {
        publisher.lock.lock();
        try {
            publisher.outbox.rewind();
            boolean beats = beatsFirst;
            long beatTime = System.nanoTime() + publisher.interval.toNanos();
            while (!publisher.isDone()) {
                if (end != null) {
                    throw end;
                }
                byte[] request = publisher.outbox.nextRequest();
                if (request == null && beats && awaited == 0) {
                    request = publisher.outbox.heartbeat();
                }
                beats = false;
                long now = System.nanoTime();
                if (request != null) {
                    if (awaited++ == 0) {
                        silentTime = now + silence();
                    }
                    call.sendMessage(request);
                    beatTime = now + publisher.interval.toNanos();
                } else if (awaited > 0 && now >= silentTime) {
                    return false;
                } else if (now >= beatTime) {
                    beats = true;
                    beatTime = now + publisher.interval.toNanos();
                } else {
                    long next = awaited > 0 ? Math.min(beatTime - now, silentTime - now) : beatTime - now;
                    publisher.changed.awaitNanos(next);
                }
            }
            return true;
        } catch (InterruptedException interrupted) {
            throw InterruptedCallException.of(interrupted);
        } finally {
            publisher.lock.unlock();
        }
    }

    /** Return for how long an answer may not come: not so long for the first one. */
    private long silence() {
        Duration silence =
                Durations.longer(publisher.interval, SHORTEST_INTERVAL).multipliedBy(Publisher.MISSED_HEARTBEATS);
        return (publisher.outbox.hasReceipt() ? silence : Durations.shorter(silence, Calls.UNANSWERED)).toNanos();
    }

    @Override
    public void onMessage(PublishEventsResponse response) {
        publisher.lock.lock();
        try {
            response.getAnswersList().forEach(this::handle);
            for (CancelRequest request : response.getCancelRequestsList()) {
                // In a thread of its own: what the application does then must not stop that of the connection.
                Runnable ask = () -> publisher.asked.complete(request.getReason());
                publisher.calls.threads.newThread(ask).start();
            }
            call.request(1);
            publisher.changed.signalAll();
        } finally {
            publisher.lock.unlock();
        }
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
        stop(status.isOk() ? CallException.cut("the server ended the call") : CallException.of(status, trailers));
    }

    private void stop(CallException cause) {
        publisher.lock.lock();
        try {
            end = end == null ? cause : end;
            publisher.changed.signalAll();
        } finally {
            publisher.lock.unlock();
        }
    }

    private void handle(BatchAnswer answer) {
        awaited = Math.max(0, awaited - 1);
        silentTime = System.nanoTime() + silence();
        if (answer.hasRejection()) {
            rejected(CallException.of(answer.getRejection()));
            return;
        }
        BatchReceipt receipt = answer.getReceipt();
        retries.open();
        if (publisher.outbox.acknowledge(receipt)) {
            retries.progress();
            publisher.gaps = 0;
        }
    }

    /** End the call for a rejection that matters: what follows another rejection does not. */
    private void rejected(CallException rejection) {
        Optional<ProducerGap> gap = rejection.reason() == ErrorReason.ERROR_REASON_PRODUCER_GAP
                ? rejection.detail(ProducerGap.class)
                : Optional.empty();
        if (gap.isEmpty()) {
            stop(rejection);
        } else if (!gap.get().getFollowsRejection()) {
            publisher.gaps++;
            boolean isKept = publisher.outbox.holds(gap.get().getExpectedProducerSequence());
            boolean isResent = isKept && publisher.gaps <= GAPS_WITHOUT_PROGRESS;
            stop(isResent ? CallException.cut(rejection.getMessage()) : rejection);
        }
    }

    /** Requests that are serialized already. */
    private static final class Serialized implements MethodDescriptor.Marshaller<byte[]> {
        @Override
        public InputStream stream(byte[] request) {
            return new ByteArrayInputStream(request);
        }

        @Override
        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException impossible) {
                throw new UncheckedIOException(impossible);
            }
        }
    }
}
