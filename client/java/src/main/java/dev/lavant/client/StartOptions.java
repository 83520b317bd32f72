package dev.lavant.client;

import dev.lavant.v1.RunKind;
import dev.lavant.v1.RunSettings;
import dev.lavant.v1.RunStarted;
import java.time.Duration;
import java.util.Map;

/** Settings of a run that is started. */
public final class StartOptions {
    private final String runId;
    private final RunSettings settings;
    private final RunStarted started;
    private final ProducerOptions producer;

    private StartOptions(Builder builder) {
        this.runId = builder.runId;
        this.settings = builder.settings.build();
        this.started = builder.started.build();
        this.producer = builder.producer == null ? ProducerOptions.builder().build() : builder.producer;
    }

    /**
     * Return a builder with the defaults.
     *
     * @return the builder
     */
    public static Builder builder() {
        return new Builder();
    }

    String runId() {
        return runId;
    }

    RunSettings settings() {
        return settings;
    }

    RunStarted started() {
        return started;
    }

    ProducerOptions producer() {
        return producer;
    }

    /** Builder of {@link StartOptions}. */
    public static final class Builder {
        private final RunSettings.Builder settings = RunSettings.newBuilder();
        private final RunStarted.Builder started = RunStarted.newBuilder();
        private String runId = "";
        private ProducerOptions producer;

        private Builder() {}

        /**
         * Set the ID of the run.
         *
         * @param id 1 to 128 characters; default: a new one
         * @return this
         */
        public Builder runId(String id) {
            this.runId = id;
            return this;
        }

        /**
         * Set the kind of the run.
         *
         * @param kind default: that of an agent
         * @return this
         */
        public Builder kind(RunKind kind) {
            settings.setKind(kind);
            return this;
        }

        /**
         * Set the labels of the run.
         *
         * @param labels default: none
         * @return this
         */
        public Builder labels(Map<String, String> labels) {
            settings.clearLabels().putAllLabels(labels);
            return this;
        }

        /**
         * Set the run that starts this one.
         *
         * @param id ID of the run; default: none
         * @return this
         */
        public Builder parentRunId(String id) {
            settings.setParentRunId(id);
            return this;
        }

        /**
         * Set the conversation that the run belongs to.
         *
         * @param id ID of the conversation; default: none
         * @return this
         */
        public Builder conversationId(String id) {
            settings.setConversationId(id);
            return this;
        }

        /**
         * Set the time without a batch after which the server ends the run as ABANDONED. The producer sends heartbeats.
         *
         * @param timeout default: never
         * @return this
         */
        public Builder producerTimeout(Duration timeout) {
            settings.setProducerTimeout(Durations.toProto(timeout));
            return this;
        }

        /**
         * Set the input of the run.
         *
         * @param json text of a JSON value; default: none
         * @return this
         */
        public Builder inputJson(String json) {
            started.setInputJson(json);
            return this;
        }

        /**
         * Set the version of the agent.
         *
         * @param version default: none
         * @return this
         */
        public Builder version(String version) {
            started.setVersion(version);
            return this;
        }

        /**
         * Set the name of the model.
         *
         * @param model default: none
         * @return this
         */
        public Builder model(String model) {
            started.setModel(model);
            return this;
        }

        /**
         * Set the identity and the limits of the producer.
         *
         * @param options default: a new producer
         * @return this
         */
        public Builder producer(ProducerOptions options) {
            this.producer = options;
            return this;
        }

        /**
         * Return the options.
         *
         * @return the options
         */
        public StartOptions build() {
            return new StartOptions(this);
        }
    }
}
