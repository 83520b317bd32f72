package dev.lavant.client;

import dev.lavant.v1.ErrorReason;
import dev.lavant.v1.Run;
import dev.lavant.v1.RunFilter;
import dev.lavant.v1.RunServiceGrpc;
import dev.lavant.v1.StreamEnd;
import dev.lavant.v1.WatchRunsRequest;
import dev.lavant.v1.WatchRunsResponse;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;

/**
 * Runs that match a filter, and then each change to them, without end.
 *
 * <p>It returns current states: of a run that changes several times while the application is busy, some are left out. It
 * continues after cuts without limit: interrupt the thread, or close the watch, to stop.
 */
public final class RunWatch implements Iterable<RunChange>, AutoCloseable {
    private static final Duration SILENCE = Duration.ofSeconds(45); // three heartbeats of the server

    private final RunFilter filter;
    private final Deque<RunChange> changes = new ArrayDeque<>();
    private final Frames frames;
    private String token;
    private boolean isCaughtUp;

    RunWatch(Calls calls, RunFilter filter, String token) {
        this.filter = filter;
        this.token = token;
        this.frames = new Frames(calls);
    }

    /**
     * Return the changes that were not returned yet. Throws what {@link EventStream#iterator} throws.
     *
     * @return an iterator that waits, and has no end
     */
    @Override
    public Iterator<RunChange> iterator() {
        return new Iterator<>() {
            @Override
            public boolean hasNext() {
                return frames.await();
            }

            @Override
            public RunChange next() {
                frames.await();
                return changes.remove();
            }
        };
    }

    /** End the watch's call, and let a thread that waits for the next change fail with {@link ClosedException}. */
    @Override
    public void close() {
        frames.close();
    }

    /** Calls of the watch. */
    private final class Frames extends FrameReader<WatchRunsResponse> {
        Frames(Calls calls) {
            super(calls, "watch");
        }

        @Override
        FrameCall<?, WatchRunsResponse> open() {
            var request = WatchRunsRequest.newBuilder()
                    .setFilter(filter)
                    .setResumeToken(token)
                    .build();
            var method = RunServiceGrpc.getWatchRunsMethod();
            return new FrameCall<>(calls.pool, calls.pool.forLongCall(), closer, method, calls.credential, request);
        }

        @Override
        Duration silence() {
            return SILENCE;
        }

        /** Take the changes of a frame, in the order in which they are to be applied. */
        @Override
        Optional<StreamEnd> accept(WatchRunsResponse frame) {
            retries.open();
            List<RunChange> found = new ArrayList<>();
            for (String id : frame.getDeletedRunIdsList()) {
                found.add(new RunChange(RunChange.Type.DELETED, id, Optional.empty(), token));
            }
            for (String id : frame.getLeftRunIdsList()) {
                found.add(new RunChange(RunChange.Type.LEFT, id, Optional.empty(), token));
            }
            for (Run run : frame.getRunsList()) {
                found.add(new RunChange(RunChange.Type.CHANGED, run.getRunId(), Optional.of(run), token));
            }
            if (frame.getCaughtUp() && !isCaughtUp) { // each call catches up
                isCaughtUp = true;
                found.add(new RunChange(RunChange.Type.CAUGHT_UP, "", Optional.empty(), token));
            }
            if (!found.isEmpty()) {
                if (!token.equals(frame.getResumeToken())) {
                    retries.progress();
                }
                RunChange last = found.remove(found.size() - 1);
                found.add(new RunChange(last.type(), last.runId(), last.run(), frame.getResumeToken()));
            }
            token = frame.getResumeToken();
            changes.addAll(found);
            return frame.hasEnd() ? Optional.of(frame.getEnd()) : Optional.empty();
        }

        @Override
        boolean isReady() {
            return !changes.isEmpty();
        }

        @Override
        boolean isComplete() {
            return false;
        }

        @Override
        boolean isRetried(CallException failed) {
            if (failed.reason() == ErrorReason.ERROR_REASON_INVALID_FIELD && !token.isEmpty()) {
                token = ""; // it is too old; an invalid filter fails again without it
                changes.add(new RunChange(RunChange.Type.RESET, "", Optional.empty(), ""));
                return true;
            }
            return Retries.isTransient(failed);
        }
    }
}
