package dev.lavant.client;

import io.grpc.ChannelCredentials;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ThreadFactory;
import java.util.function.Supplier;

/**
 * Client of a lavant server. It is safe for use by many threads; create one for the whole program. The first call opens the
 * connection.
 */
public final class Client implements AutoCloseable {
    private final Calls calls;
    private final Runs runs;
    private final Scores scores;

    private Client(Builder builder) {
        List<String> targets = builder.targets;
        if (targets.isEmpty()) {
            String target = System.getenv("LAVANT_TARGET");
            targets = List.of(target == null || target.isEmpty() ? "localhost:7447" : target);
        }
        String key = builder.apiKey;
        if (key == null && builder.token == null) {
            String variable = System.getenv("LAVANT_API_KEY");
            key = variable == null || variable.isEmpty() ? null : variable;
        }
        boolean isPrivate = builder.tls != null || builder.isInsecure;
        Credential credential = new Credential(key, builder.token, isPrivate, targets);
        Dialer dialer = new Dialer(targets, builder.tls);
        ConnectionPool pool = new ConnectionPool(dialer::dial, builder.callsPerConnection, System::nanoTime);
        calls = new Calls(pool, credential, builder.timeout, builder.threads);
        runs = new Runs(calls);
        scores = new Scores(calls);
    }

    /**
     * Return a client with the defaults: it connects to LAVANT_TARGET, or {@code localhost:7447}, in plain text.
     *
     * @return the client
     */
    public static Client create() {
        return builder().build();
    }

    /**
     * Return a builder with the defaults of {@link #create}.
     *
     * @return the builder
     */
    public static Builder builder() {
        return new Builder();
    }

    /**
     * Return the calls about runs and their events.
     *
     * @return the calls
     */
    public Runs runs() {
        return runs;
    }

    /**
     * Return the calls about scores.
     *
     * @return the calls
     */
    public Scores scores() {
        return scores;
    }

    /**
     * End all calls, and close the connections. Events of producers that are not durable are lost, which is logged: finish or
     * flush each producer before.
     */
    @Override
    public void close() {
        calls.closer.close();
        calls.pool.close();
    }

    /** Builder of {@link Client}. */
    public static final class Builder {
        private List<String> targets = List.of();
        private ChannelCredentials tls;
        private String apiKey;
        private Supplier<String> token;
        private boolean isInsecure;
        private Duration timeout = Duration.ofSeconds(30);
        private int callsPerConnection = 1_000;
        private ThreadFactory threads = Builder::daemon;

        private Builder() {}

        /**
         * Set the addresses of the server. With several, or with one {@code dns:///name:port}, calls go to all that can be
         * connected to in turn.
         *
         * @param targets host:port each; default: LAVANT_TARGET, or {@code localhost:7447}
         * @return this
         */
        public Builder targets(String... targets) {
            this.targets = List.of(targets);
            return this;
        }

        /**
         * Encrypt connections, and trust the certificate authorities of the system.
         *
         * @return this
         */
        public Builder tls() {
            return tls(TlsChannelCredentials.create());
        }

        /**
         * Encrypt connections, and trust one certificate authority.
         *
         * @param authority PEM file of its certificate
         * @return this
         */
        public Builder tls(Path authority) {
            try {
                File file = authority.toFile();
                return tls(TlsChannelCredentials.newBuilder().trustManager(file).build());
            } catch (IOException unreadable) {
                throw new UncheckedIOException(unreadable);
            }
        }

        /**
         * Encrypt connections with settings of your own, such as a client certificate.
         *
         * @param tls for example made by {@link TlsChannelCredentials#newBuilder}
         * @return this
         */
        public Builder tls(ChannelCredentials tls) {
            this.tls = tls;
            return this;
        }

        /**
         * Set the credential of each call.
         *
         * @param key default: LAVANT_API_KEY, unless there is a token
         * @return this
         */
        public Builder apiKey(String key) {
            this.apiKey = key;
            return this;
        }

        /**
         * Set a function that returns the credential, such as a JWT. It is called for each call, also for each reconnect of a
         * stream, and once more after the server has refused it: keep there what is expensive to obtain. An exception counts
         * as a cut connection.
         *
         * @param token a function that may be called by several threads at once
         * @return this
         */
        public Builder token(Supplier<String> token) {
            this.token = token;
            return this;
        }

        /**
         * Allow credentials in plain text to other machines than this one.
         *
         * @return this
         */
        public Builder insecure() {
            this.isInsecure = true;
            return this;
        }

        /**
         * Set the limit of single calls with their retries. Streams and producers have none.
         *
         * @param timeout default 30 s
         * @return this
         */
        public Builder timeout(Duration timeout) {
            this.timeout = timeout;
            return this;
        }

        /**
         * Set the number of open calls after which a further connection is opened.
         *
         * @param calls default 1,000, which lavant allows; set less for a proxy that allows less, as many with 100 do: gRPC
         *     lets calls beyond wait unseen
         * @return this
         */
        public Builder callsPerConnection(int calls) {
            this.callsPerConnection = calls;
            return this;
        }

        /**
         * Set what makes the thread of each producer, such as {@code Thread.ofVirtual().factory()}.
         *
         * @param threads default: daemon threads of the platform
         * @return this
         */
        public Builder threadFactory(ThreadFactory threads) {
            this.threads = threads;
            return this;
        }

        /**
         * Return a client, without connecting.
         *
         * @return the client
         * @throws IllegalArgumentException for settings that cannot work
         */
        public Client build() {
            return new Client(this);
        }

        private static Thread daemon(Runnable work) {
            Thread thread = new Thread(work, "lavant-producer");
            thread.setDaemon(true);
            return thread;
        }
    }
}
