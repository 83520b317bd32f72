package dev.lavant.client;

import dev.lavant.v1.DeltaMode;
import dev.lavant.v1.EventType;
import dev.lavant.v1.StartPosition;
import dev.lavant.v1.StopPosition;
import dev.lavant.v1.StreamEventsRequest;
import java.time.Duration;

/** Settings of an {@link EventStream}. Without any, it reads the whole run, to its end. */
public final class ReadOptions {
    private static final Duration HEARTBEAT_INTERVAL = Duration.ofSeconds(15);

    private final StreamEventsRequest request;
    private final String position;

    private ReadOptions(StreamEventsRequest request, String position) {
        this.request = request;
        this.position = position;
    }

    /**
     * Return a builder with the defaults.
     *
     * @return the builder
     */
    public static Builder builder() {
        return new Builder();
    }

    /** Return the request of all calls, without the run, the session and the position. */
    StreamEventsRequest request() {
        return request;
    }

    /** Return the position to continue after; "" for none. */
    String position() {
        return position;
    }

    /** Builder of {@link ReadOptions}. */
    public static final class Builder {
        private final StreamEventsRequest.Builder request = StreamEventsRequest.newBuilder();
        private String position = "";

        private Builder() {
            heartbeatInterval(HEARTBEAT_INTERVAL);
        }

        /**
         * Set the ID of the reader, such as {@code alice@example.org}: one stream is open per run and consumer.
         *
         * @param id 1 to 128 characters; default: a consumer of its own
         * @return this
         */
        public Builder consumer(String id) {
            request.setConsumerId(id);
            return this;
        }

        /**
         * Set the position to continue after.
         *
         * @param position of {@link EventStream#position}, or of any other client
         * @return this
         */
        public Builder resumeToken(String position) {
            this.position = position;
            return this;
        }

        /**
         * Displace the stream of another session of the consumer, instead of failing with CONSUMER_BUSY.
         *
         * @param takeOver default false
         * @return this
         */
        public Builder takeOver(boolean takeOver) {
            request.setTakeOver(takeOver);
            return this;
        }

        /**
         * Set where a stream without a resume token starts.
         *
         * @param start default: the beginning
         * @return this
         */
        public Builder start(StartPosition start) {
            request.setStart(start);
            return this;
        }

        /**
         * Set where the stream ends.
         *
         * @param stop default: the end of the run
         * @return this
         */
        public Builder stop(StopPosition stop) {
            request.setStop(stop);
            return this;
        }

        /**
         * Set the types of events to read.
         *
         * @param types default: with a resume token, those of the stream that it comes from; otherwise all
         * @return this
         */
        public Builder types(Iterable<EventType> types) {
            request.clearTypes().addAllTypes(types);
            return this;
        }

        /**
         * Set how deltas of text, reasoning, tool arguments and tool output are sent.
         *
         * @param deltas default: all
         * @return this
         */
        public Builder deltas(DeltaMode deltas) {
            request.setDeltas(deltas);
            return this;
        }

        /**
         * Set the time without an event after which the stream ends with the reason IDLE.
         *
         * @param timeout 1 s to 24 h; default: none
         * @return this
         */
        public Builder idleTimeout(Duration timeout) {
            request.setIdleTimeout(Durations.toProto(timeout));
            return this;
        }

        /**
         * Set the time of silence after which the server sends a heartbeat; after three without any, the connection counts as
         * cut.
         *
         * @param interval 1 s to 60 s; default 15 s
         * @return this
         */
        public Builder heartbeatInterval(Duration interval) {
            request.setHeartbeatInterval(Durations.toProto(interval));
            return this;
        }

        /**
         * Wait for the run to be created, instead of failing with RUN_NOT_FOUND.
         *
         * @param wait default false
         * @return this
         */
        public Builder waitForRun(boolean wait) {
            request.setWaitForRun(wait);
            return this;
        }

        /**
         * Return the options.
         *
         * @return the options
         */
        public ReadOptions build() {
            return new ReadOptions(request.build(), position);
        }
    }
}
