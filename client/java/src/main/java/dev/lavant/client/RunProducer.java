package dev.lavant.client;

import dev.lavant.v1.BatchReceipt;
import dev.lavant.v1.Event;
import dev.lavant.v1.Role;
import dev.lavant.v1.RunFinished;
import dev.lavant.v1.RunState;
import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletionStage;

/**
 * Producer of one run. Its methods queue events, which a thread sends in order and exactly once, over as many calls as it takes;
 * they wait only while the outbox is full. They throw {@link CallException} when the server has refused an event for good: the
 * run cannot be continued then. All methods may be called by any thread.
 *
 * <p>End it with {@link #finish()} or {@link #fail}. Without that, the run stays open, and {@link #close} drops what is not
 * durable.
 */
public final class RunProducer implements AutoCloseable {
    private static final int MAX_ERROR_MESSAGE = 2_000; // characters, of which one takes 4 of 8,192 bytes at most

    private final Publisher publisher;
    private final long began = System.nanoTime();

    RunProducer(Publisher publisher) {
        this.publisher = publisher;
    }

    /**
     * Return the ID of the run.
     *
     * @return the ID
     */
    public String id() {
        return publisher.run;
    }

    /**
     * Queue an event, and wait while the outbox is full. The event's ID and time are set, unless it has them.
     *
     * @param event an event of the contract, of up to 1 MiB
     * @throws IllegalArgumentException for a larger one
     * @throws IllegalStateException after the end of the run
     */
    public void publish(Event event) {
        publisher.publish(event, false, false);
    }

    /**
     * Start a message of an author, which ends when it is closed.
     *
     * @param role role of the author
     * @return the message
     */
    public Message message(Role role) {
        return message(role, "");
    }

    /**
     * Start a message within a step.
     *
     * @param role role of the author
     * @param stepId ID of an open step
     * @return the message
     */
    public Message message(Role role, String stepId) {
        return new Message(publisher, stepId, role);
    }

    /**
     * Wait until all events that were queued before are durable.
     *
     * @return the receipt of the last batch
     */
    public BatchReceipt flush() {
        return publisher.flush(null);
    }

    /**
     * Wait for a time until all events that were queued before are durable.
     *
     * @param timeout how long to wait
     * @return the receipt of the last batch
     * @throws DeadlineException if they are not durable in time; they are still sent
     */
    public BatchReceipt flush(Duration timeout) {
        return publisher.flush(timeout);
    }

    /**
     * Return a stage that completes when somebody asks the run to stop, with the reason for people, which may be empty: stop the
     * work, and call {@link #fail} with a {@link CancellationException}.
     *
     * @return the stage
     */
    public CompletionStage<String> cancelled() {
        return publisher.asked.minimalCompletionStage();
    }

    /**
     * Throw a {@link CancellationException} with the reason if somebody has asked the run to stop: for use between the steps of
     * the work.
     */
    public void throwIfCancelled() {
        if (publisher.asked.isDone()) {
            throw new CancellationException(publisher.asked.join());
        }
    }

    /**
     * End the run as SUCCEEDED, and wait until all of it is durable.
     *
     * @return the receipt of the last batch
     */
    public BatchReceipt finish() {
        return finish("");
    }

    /**
     * End the run as SUCCEEDED with an output, and wait until all of it is durable.
     *
     * @param outputJson text of a JSON value
     * @return the receipt of the last batch
     */
    public BatchReceipt finish(String outputJson) {
        end(RunFinished.newBuilder()
                .setState(RunState.RUN_STATE_SUCCEEDED)
                .setOutputJson(outputJson)
                .build());
        return flush();
    }

    /**
     * End the run, and wait until all of it is durable: as CANCELLED for a {@link CancellationException}, otherwise as FAILED.
     *
     * @param cause what has ended the work
     * @return the receipt of the last batch
     */
    public BatchReceipt fail(Throwable cause) {
        boolean isCancelled = cause instanceof CancellationException;
        String message = cause.getMessage() == null ? cause.getClass().getSimpleName() : cause.getMessage();
        dev.lavant.v1.Error error = dev.lavant.v1.Error.newBuilder()
                .setMessage(message.substring(0, Math.min(message.length(), MAX_ERROR_MESSAGE)))
                .setType(cause.getClass().getName())
                .build();
        RunState state = isCancelled ? RunState.RUN_STATE_CANCELLED : RunState.RUN_STATE_FAILED;
        end(RunFinished.newBuilder().setState(state).setError(error).build());
        return flush();
    }

    /**
     * Queue the end of the run, without waiting. Call {@link #flush()} to wait until it is durable.
     *
     * @param result state, output and error; the duration is set, unless it has one
     */
    public void end(RunFinished result) {
        RunFinished.Builder whole = result.toBuilder();
        if (!result.hasDuration()) {
            whole.setDuration(Durations.toProto(Duration.ofNanos(System.nanoTime() - began)));
        }
        publisher.publish(Event.newBuilder().setRunFinished(whole).build(), true, true);
    }

    /** Drop what is not durable and stop to publish, without an end of the run. No effect once all of a run is durable. */
    @Override
    public void close() {
        publisher.close();
    }
}
