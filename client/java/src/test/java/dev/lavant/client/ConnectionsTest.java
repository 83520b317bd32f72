package dev.lavant.client;

import static dev.lavant.client.Support.client;
import static dev.lavant.client.Support.counted;
import static dev.lavant.client.Support.record;
import static dev.lavant.client.Support.sequences;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Connections and credentials of clients. */
@Timeout(60)
final class ConnectionsTest {
    private static final String NOBODY = "127.0.0.1:1";

    @Test
    void callsPerConnection_moreStreams_openFurtherConnections() {
        try (TestProxy proxy = new TestProxy(TestServer.shared().target(), 0);
                Client client = Client.builder()
                        .targets(proxy.target())
                        .callsPerConnection(2)
                        .build();
                RunProducer run = client.runs().start("noter")) {
            run.flush();
            List<EventStream> streams = new ArrayList<>();
            for (int number = 0; number < 5; number++) {
                EventStream stream = client.runs().read(run.id());
                stream.iterator().next();
                streams.add(stream);
            }
            assertEquals(3, proxy.accepted()); // 1 producer and 5 streams
            client.runs().get(run.id());
            assertEquals(4, proxy.accepted()); // short calls have their own
            streams.forEach(EventStream::close);
            run.finish();
            assertEquals(counted(1, 2), sequences(client.runs().read(run.id())));
            assertEquals(4, proxy.accepted());
        }
    }

    @Test
    void targets_oneOfThemDead_areUsedAllTheSame() {
        try (Client client = client(NOBODY, TestServer.shared().target(), "localhost:1")) {
            assertEquals(counted(1, 12), sequences(client.runs().read(record(client, 10))));
        }
    }

    @Test
    void targets_killedServer_isFoundAgain() {
        try (TestServer server = new TestServer();
                Client client = client(NOBODY, server.target())) {
            String run = record(client, 1);
            for (int kill = 0; kill < 3; kill++) {
                server.restart();
                assertEquals(run, client.runs().get(run).getRunId());
            }
        }
    }

    @Test
    void call_noServer_failsWhenItsTimeIsOver() {
        try (Client client =
                Client.builder().targets(NOBODY).timeout(Duration.ofSeconds(3)).build()) {
            CallException failed =
                    assertThrows(CallException.class, () -> client.runs().get("run"));
            assertEquals(Status.Code.UNAVAILABLE, failed.code());
            assertEquals("", failed.reasonName());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"192.0.2.1:7447", "dns:///lavant.example:7447", "lavant.example"})
    void credential_plainTextToAnotherMachine_isRefused(String target) {
        Client.Builder builder = Client.builder().targets(target).apiKey("secret");
        IllegalArgumentException refused = assertThrows(IllegalArgumentException.class, builder::build);
        assertFalse(refused.getMessage().contains("secret"), refused.getMessage());
        builder.insecure().build().close();
    }

    @ParameterizedTest
    @ValueSource(strings = {"localhost", "127.0.0.1:1", "[::1]:1", "dns:///localhost:1"})
    void credential_plainTextToThisMachine_isAllowed(String target) {
        Client.builder().targets(target).apiKey("secret").build().close();
    }

    @Test
    void token_thatFails_isAskedAgainAndNotShown() {
        AtomicInteger asked = new AtomicInteger();
        try (Client client = Client.builder()
                .targets(TestServer.shared().target())
                .timeout(Duration.ofSeconds(3))
                .token(() -> {
                    asked.incrementAndGet();
                    throw new IllegalStateException("secret");
                })
                .build()) {
            CallException failed =
                    assertThrows(CallException.class, () -> client.runs().get("run"));
            assertTrue(asked.get() > 1);
            assertFalse(failed.getMessage().contains("secret"), failed.getMessage());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"http://localhost:7447", "https://lavant.example"})
    void targets_urls_areRefused(String target) {
        assertThrows(IllegalArgumentException.class, () -> client(target));
    }

    @Test
    void close_openProducers_leavesNoThread() throws InterruptedException {
        List<Thread> threads = new ArrayList<>();
        Client client = Client.builder()
                .targets(NOBODY)
                .threadFactory(work -> {
                    threads.add(new Thread(work));
                    return threads.get(threads.size() - 1);
                })
                .build();
        client.runs().start("one");
        client.runs().start("other");
        client.close();
        assertEquals(2, threads.size());
        for (Thread thread : threads) {
            thread.join();
        }
        assertThrows(ClosedException.class, () -> client.runs().start("late"));
        assertThrows(ClosedException.class, () -> client.runs().get("late"));
        client.close();
    }
}
