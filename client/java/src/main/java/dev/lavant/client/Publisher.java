package dev.lavant.client;

import com.google.protobuf.Timestamp;
import dev.lavant.v1.BatchReceipt;
import dev.lavant.v1.Event;
import dev.lavant.v1.ProducerBatch;
import dev.lavant.v1.RunSettings;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;

/** Queue of the events of one run, and a thread that sends them until they are durable. */
final class Publisher {
    static final int MISSED_HEARTBEATS = 3;
    private static final Duration LONGEST_INTERVAL = Duration.ofSeconds(15);
    private static final long STOP_SECONDS = 5; // for a thread that obtains a token

    final Calls calls;
    final String run;
    final Closer closer;
    final Duration interval; // of heartbeats
    /** Completed with the reason when the server asks to cancel the run. */
    final CompletableFuture<String> asked = new CompletableFuture<>();
    /** Lock of everything below, and of the outbox. */
    final ReentrantLock lock = new ReentrantLock();
    /** Signalled when anything changes that the lock guards. */
    final Condition changed = lock.newCondition();

    final Outbox outbox;
    private final ProducerOptions options;
    private final CountDownLatch stopped = new CountDownLatch(1);
    private Thread thread;
    private long last; // number of the last queued event
    private boolean isFinishing; // nothing follows what is queued
    private RuntimeException failure;
    /** Rejections with PRODUCER_GAP since the last progress. */
    int gaps;

    /** Create one, which calls the server with its first event. Without settings the run exists. */
    Publisher(Calls calls, String run, RunSettings settings, ProducerOptions options) {
        this.calls = calls;
        this.run = run;
        this.options = options;
        ProducerBatch.Builder address = ProducerBatch.newBuilder()
                .setRunId(run)
                .setProducerId(options.id())
                .setProducerEpoch(options.epoch());
        Duration timeout = Duration.ZERO;
        if (settings != null) {
            address.setCreate(settings);
            timeout = Durations.of(settings.getProducerTimeout());
        }
        interval = timeout.isZero()
                ? LONGEST_INTERVAL
                : Durations.shorter(LONGEST_INTERVAL, timeout.dividedBy(MISSED_HEARTBEATS));
        outbox = new Outbox(address.build());
        closer = new Closer(calls.closer, "producer");
        closer.add(this::stop);
        closer.attach();
    }

    /**
     * Queue an event, and wait while the outbox is full. An event that ends something that has begun never waits. The last
     * event is the run's end.
     */
    void publish(Event event, boolean isClosing, boolean isLast) {
        lock.lock();
        try {
            await(() -> isClosing || outbox.bytes() < options.queueBytes(), null);
            if (isFinishing) {
                throw new IllegalStateException("run " + run + ": the producer has finished");
            }
            last = outbox.put(complete(event));
            isFinishing = isLast;
            changed.signalAll();
            if (thread == null) {
                thread = calls.threads.newThread(this::send);
                thread.start();
            }
        } finally {
            lock.unlock();
        }
    }

    private Event complete(Event event) {
        if (!event.getEventId().isEmpty() && event.hasEventTime()) {
            return event;
        }
        Event.Builder whole = event.toBuilder();
        if (event.getEventId().isEmpty()) {
            whole.setEventId("%s.%d.%d".formatted(options.id(), options.epoch(), last + 1));
        }
        if (!event.hasEventTime()) {
            Instant now = options.clock().instant();
            whole.setEventTime(
                    Timestamp.newBuilder().setSeconds(now.getEpochSecond()).setNanos(now.getNano()));
        }
        return whole.build();
    }

    /** Wait until all events that are queued now are durable, without limit for null; return the last batch's receipt. */
    BatchReceipt flush(Duration timeout) {
        lock.lock();
        try {
            long wanted = last;
            await(() -> outbox.durable() >= wanted, timeout);
            return outbox.receipt();
        } finally {
            lock.unlock();
        }
    }

    /** Drop what is not durable, and wait until nothing is sent any more. */
    void close() {
        closer.close();
    }

    private void stop() {
        fail(new ClosedException("producer"));
        lock.lock();
        try {
            if (thread == null || thread == Thread.currentThread()) {
                return;
            }
            thread.interrupt();
        } finally {
            lock.unlock();
        }
        try {
            if (!stopped.await(STOP_SECONDS, TimeUnit.SECONDS)) {
                Calls.LOG.log(Level.WARNING, "the thread of run {0} has not stopped: does the token wait?", run);
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Return whether all is durable and nothing follows, or something failed for good. Call it with the lock. */
    boolean isDone() {
        return failure != null || isFinishing && outbox.isEmpty();
    }

    /** Refuse all events from now on, and drop those that are not durable. */
    private void fail(RuntimeException cause) {
        lock.lock();
        try {
            if (isDone()) {
                return;
            }
            failure = cause;
            long lost = outbox.drop();
            if (lost > 0) {
                Calls.LOG.log(Level.WARNING, "{0} events of run {1} are lost: {2}", lost, run, cause.getMessage());
            }
            changed.signalAll();
        } finally {
            lock.unlock();
        }
    }

    /** Wait for a condition with the lock, for a time or, for null, without limit. Throws the failure. */
    private void await(BooleanSupplier condition, Duration timeout) {
        long left = timeout == null ? Long.MAX_VALUE : timeout.toNanos();
        while (true) {
            if (failure instanceof CallException refused) {
                throw refused.again();
            }
            if (failure != null) {
                throw new ClosedException("producer", failure);
            }
            if (condition.getAsBoolean()) {
                return;
            }
            if (left <= 0) {
                throw new DeadlineException("events of run %s are not durable after %s".formatted(run, timeout));
            }
            try {
                left = changed.awaitNanos(left);
            } catch (InterruptedException interrupted) {
                throw InterruptedCallException.of(interrupted);
            }
        }
    }

    /**
     * Make one PublishEvents call after the other, until all is durable and nothing follows, or something fails for good. It
     * follows docs/protocol.md, "Publishing".
     */
    private void send() {
        Retries retries = new Retries();
        try {
            for (boolean isFirst = true; ; isFirst = false) {
                retries.begin();
                try {
                    new PublishCall(this, retries).run(isFirst);
                    return;
                } catch (CallException failed) {
                    boolean isFirstCut = retries.settle();
                    Duration delay = retries.after(failed, calls.credential, Retries::isTransient)
                            .orElseThrow(() -> failed);
                    if (isFirstCut) {
                        Calls.LOG.log(Level.WARNING, "run {0}: publishing cut: {1}", run, failed.getMessage());
                    }
                    closer.sleep(delay);
                }
            }
        } catch (RuntimeException failed) {
            fail(failed);
        } finally {
            stopped.countDown();
            closer.close();
        }
    }
}
