package dev.lavant.client;

import java.time.Clock;

/** Identity and limits of a producer. */
public final class ProducerOptions {
    private static final int QUEUE_BYTES = 8 << 20;

    private final String id;
    private final long epoch;
    private final int queueBytes;
    private final Clock clock;

    private ProducerOptions(Builder builder) {
        this.id = builder.id.isEmpty() ? Ids.random() : builder.id;
        this.epoch = builder.epoch;
        this.queueBytes = builder.queueBytes;
        this.clock = builder.clock;
    }

    /**
     * Return a builder with the defaults.
     *
     * @return the builder
     */
    public static Builder builder() {
        return new Builder();
    }

    String id() {
        return id;
    }

    long epoch() {
        return epoch;
    }

    int queueBytes() {
        return queueBytes;
    }

    Clock clock() {
        return clock;
    }

    /** Builder of {@link ProducerOptions}. */
    public static final class Builder {
        private String id = "";
        private long epoch = 1;
        private int queueBytes = QUEUE_BYTES;
        private Clock clock = Clock.systemUTC();

        private Builder() {}

        /**
         * Set the ID of the producer. A process that continues a run of another one uses its ID with a higher epoch, which
         * fences the other one off.
         *
         * @param id 1 to 128 characters; default: a new one
         * @return this
         */
        public Builder id(String id) {
            this.id = id;
            return this;
        }

        /**
         * Set the incarnation of the producer.
         *
         * @param epoch default 1
         * @return this
         */
        public Builder epoch(long epoch) {
            this.epoch = epoch;
            return this;
        }

        /**
         * Set the size of the outbox; beyond it, methods wait.
         *
         * @param bytes default 8 MiB
         * @return this
         */
        public Builder queueBytes(int bytes) {
            this.queueBytes = bytes;
            return this;
        }

        /**
         * Set what the times of events come from.
         *
         * @param clock default: that of the system
         * @return this
         */
        public Builder clock(Clock clock) {
            this.clock = clock;
            return this;
        }

        /**
         * Return the options.
         *
         * @return the options
         */
        public ProducerOptions build() {
            return new ProducerOptions(this);
        }
    }
}
