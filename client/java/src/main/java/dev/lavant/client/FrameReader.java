package dev.lavant.client;

import dev.lavant.v1.StreamEnd;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantLock;

/** Frames of one stream of the server after another. One thread reads at a time. */
abstract class FrameReader<Response> {
    private static final Duration STATUS_TIMEOUT = Duration.ofSeconds(1);

    final Calls calls;
    final Closer closer;
    final Retries retries = new Retries();
    private final String what;
    private final ReentrantLock reading = new ReentrantLock();
    private FrameCall<?, Response> call;
    private Duration pause = Duration.ZERO; // before the next call

    FrameReader(Calls calls, String what) {
        this.calls = calls;
        this.closer = new Closer(calls.closer, what);
        this.what = what;
    }

    /** Make a call. */
    abstract FrameCall<?, Response> open();

    /** Return the time without a frame after which the connection counts as dead. */
    abstract Duration silence();

    /** Take a frame; return the end of its call, if it has one. */
    abstract Optional<StreamEnd> accept(Response frame);

    /** Return whether an item can be returned. */
    abstract boolean isReady();

    /** Return whether nothing follows. */
    abstract boolean isComplete();

    /** Return whether to call again after an error. */
    abstract boolean isRetried(CallException failed);

    /** Note the end of a call. */
    void left() {}

    /** Wait for an item; return false if the stream is complete. Throws what a reconnect cannot solve. */
    boolean await() {
        if (!reading.tryLock()) {
            closer.check();
            throw new IllegalStateException("the stream is being read already: use one stream per reader");
        }
        try {
            while (!isReady()) {
                if (isComplete()) {
                    closer.close();
                    return false;
                }
                step();
            }
            closer.check();
            return true;
        } finally {
            reading.unlock();
        }
    }

    /** Take one frame, or end the present call and wait for the next one. */
    private void step() {
        boolean isOver = true;
        try {
            if (call == null) {
                closer.attach(); // here, so that a stream that is never read holds nothing
                closer.sleep(pause);
                pause = Duration.ZERO;
                retries.begin();
                call = open();
            }
            Response frame = call.next(silence());
            if (frame == null) {
                throw CallException.cut("the stream ended without its last frame");
            }
            Optional<StreamEnd> end = accept(frame);
            end.ifPresent(this::end);
            isOver = end.isPresent();
        } catch (CallException failed) {
            pause = after(failed);
        } finally {
            if (isOver) {
                leave();
            }
        }
    }

    private void end(StreamEnd end) {
        pause = retries.planned(Durations.of(end.getRetryDelay()));
        try {
            call.nextInTime(STATUS_TIMEOUT); // a call that is cancelled before it looks to the server like a cut
        } catch (CallException late) {
            // The end has said all.
        }
    }

    private Duration after(CallException failed) {
        boolean isFirst = retries.settle();
        Duration delay =
                retries.after(failed, calls.credential, this::isRetried).orElse(null);
        if (delay == null) {
            closer.close();
            throw failed;
        }
        if (isFirst) {
            Calls.LOG.log(Level.WARNING, "{0} cut: {1}", what, failed.getMessage());
        }
        return delay;
    }

    private void leave() {
        if (call != null) {
            call.close();
            call = null;
            left();
        }
    }

    /** End the call, also of a thread that waits for its next frame. */
    void close() {
        closer.close();
        reading.lock(); // such a thread leaves at once
        try {
            leave();
        } finally {
            reading.unlock();
        }
    }
}
