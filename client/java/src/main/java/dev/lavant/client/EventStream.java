package dev.lavant.client;

import dev.lavant.v1.Event;
import dev.lavant.v1.EventServiceGrpc;
import dev.lavant.v1.Run;
import dev.lavant.v1.RunFinished;
import dev.lavant.v1.RunState;
import dev.lavant.v1.StreamEnd;
import dev.lavant.v1.StreamEndReason;
import dev.lavant.v1.StreamEventsRequest;
import dev.lavant.v1.StreamEventsResponse;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.function.Consumer;

/**
 * Events of one run, each once, recorded ones and then those to come, over as many calls as it takes.
 *
 * <p>Iterating waits for the next event, and ends when the stream is complete. Cut connections are restored without limit:
 * interrupt the thread, or close the stream, to stop. After a loop was left, another one continues with the next event.
 *
 * <p>Close a stream whose end was not reached: until then, its call stays open. One thread iterates at a time; all other
 * methods may be called by any.
 */
public final class EventStream implements Iterable<Event>, AutoCloseable {
    private static final int MISSED_HEARTBEATS = 3;

    private final Calls calls;
    private final Session session;
    private final StreamEventsRequest request;
    private final ReadPosition position;
    private final Frames frames;

    EventStream(Calls calls, Session session, StreamEventsRequest request, String position) {
        this.calls = calls;
        this.session = session;
        this.request = request;
        this.position = new ReadPosition(position);
        this.frames = new Frames();
    }

    /**
     * Return the events after the stream's position. Throws {@link CallException} for an error that a reconnect cannot solve,
     * {@link InterruptedCallException} when the thread is interrupted, {@link ClosedException} after {@link #close}.
     *
     * @return an iterator that waits; several share the position of the stream
     */
    @Override
    public Iterator<Event> iterator() {
        return new Iterator<>() {
            @Override
            public boolean hasNext() {
                return frames.await();
            }

            @Override
            public Event next() {
                if (!frames.await()) {
                    throw new NoSuchElementException("the stream is complete");
                }
                return position.next();
            }
        };
    }

    /**
     * Return the position after the last event that was returned: store it when that event is handled, and pass it to
     * {@link ReadOptions.Builder#resumeToken}.
     *
     * <p>The server sends a token per frame. Between the events of a frame, the position is the token before the frame,
     * {@code ~} and the sequence of the last event that was returned, which the clients in other languages accept. With merged
     * deltas, a delta that extends beyond such a position is returned whole, with text that was returned before.
     *
     * @return a resume token; empty before the first frame
     */
    public String position() {
        return position.stored();
    }

    /**
     * Return the run as it was when the stream was opened last.
     *
     * @return the run; nothing before, and while the stream waits for the run
     */
    public Optional<Run> run() {
        return position.opened().hasRun() ? Optional.of(position.opened().getRun()) : Optional.empty();
    }

    /**
     * Return the number of the consumer's lease, which grows with every opening: use it to reject writes of an older reader in
     * your own storage.
     *
     * @return the fence; 0 before the stream is opened
     */
    public long fence() {
        return position.opened().getFence();
    }

    /**
     * Return whether all events that were recorded when the stream was opened first have been returned.
     *
     * @return true from then on
     */
    public boolean isCaughtUp() {
        return position.isCaughtUp();
    }

    /**
     * Return why the stream is complete.
     *
     * @return RUN_FINISHED, HEAD_REACHED or IDLE; UNSPECIFIED while it is not
     */
    public StreamEndReason endReason() {
        return position.isComplete() ? position.end().getReason() : StreamEndReason.STREAM_END_REASON_UNSPECIFIED;
    }

    /**
     * Read to the end of the run, and return how it ended.
     *
     * @return the end of a run that succeeded
     * @throws RunNotSucceededException for another end
     * @throws CallException with RUN_NOT_ENDED if the stream ends before the run
     */
    public RunFinished result() {
        return follow(event -> {});
    }

    /**
     * Read to the end of the run, and return the text of its own agent, without that of nested ones. Throws what
     * {@link #result} throws.
     *
     * @return the text
     */
    public String text() {
        TextProjection text = new TextProjection();
        follow(text::add);
        return text.text();
    }

    private RunFinished follow(Consumer<Event> take) {
        RunFinished result = null;
        for (Event event : this) {
            take.accept(event);
            if (event.hasRunFinished()) {
                result = event.getRunFinished();
            }
        }
        if (result == null) { // filtered out, or returned by an earlier loop
            result = new Runs(calls).get(request.getRunId()).getResult();
        }
        if (result.getState() == RunState.RUN_STATE_UNSPECIFIED) {
            throw CallException.notEnded(request.getRunId());
        }
        if (result.getState() != RunState.RUN_STATE_SUCCEEDED) {
            throw new RunNotSucceededException(request.getRunId(), result);
        }
        return result;
    }

    /** End the stream's call, and let a thread that waits for the next event fail with {@link ClosedException}. */
    @Override
    public void close() {
        frames.close();
    }

    /** Calls of the stream. */
    private final class Frames extends FrameReader<StreamEventsResponse> {
        private Duration silence = Durations.of(request.getHeartbeatInterval()).multipliedBy(MISSED_HEARTBEATS);

        Frames() {
            super(EventStream.this.calls, "stream");
        }

        @Override
        FrameCall<?, StreamEventsResponse> open() {
            StreamEventsRequest.Builder next = request.toBuilder()
                    .setSessionId(session.id)
                    .setTakeOver(request.getTakeOver() && !session.isOpened());
            if (!position.token().isEmpty()) {
                next.setResumeToken(position.token());
            }
            Connection connection = calls.pool.forLongCall();
            next.setAttempt(session.next());
            boolean isMade = false;
            try {
                var method = EventServiceGrpc.getStreamEventsMethod();
                var call = new FrameCall<>(calls.pool, connection, closer, method, calls.credential, next.build());
                isMade = true;
                return call;
            } finally {
                if (!isMade) {
                    session.leave();
                }
            }
        }

        @Override
        void left() {
            session.leave();
        }

        @Override
        Duration silence() {
            return silence;
        }

        @Override
        Optional<StreamEnd> accept(StreamEventsResponse frame) {
            if (frame.hasOpened()) {
                session.open();
                retries.open();
                Duration interval = Durations.of(frame.getOpened().getHeartbeatInterval());
                if (!interval.isZero()) {
                    silence = interval.multipliedBy(MISSED_HEARTBEATS);
                }
            }
            if (position.accept(frame)) {
                retries.progress();
            }
            return frame.hasEnd() ? Optional.of(frame.getEnd()) : Optional.empty();
        }

        @Override
        boolean isReady() {
            return position.hasEvent();
        }

        @Override
        boolean isComplete() {
            return position.isComplete();
        }

        @Override
        boolean isRetried(CallException failed) {
            return Retries.isCut(failed);
        }
    }
}
