package dev.lavant.client;

import static dev.lavant.client.Support.client;
import static dev.lavant.client.Support.counted;
import static dev.lavant.client.Support.expectRefused;
import static dev.lavant.client.Support.record;
import static dev.lavant.client.Support.sequences;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.lavant.v1.ErrorReason;
import dev.lavant.v1.Event;
import dev.lavant.v1.StreamEndReason;
import java.time.Duration;
import java.util.Iterator;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Reading of runs, over connections that are cut. */
@Timeout(60)
final class ReadingTest {
    @Test
    void read_wholeRun_returnsEachEventOnce() {
        try (Client client = client()) {
            String run = record(client, 2_500);
            EventStream stream = client.runs().read(run);
            assertEquals(counted(1, 2_502), sequences(stream));
            assertEquals(StreamEndReason.STREAM_END_REASON_RUN_FINISHED, stream.endReason());
            assertTrue(stream.isCaughtUp());
            assertTrue(stream.fence() > 0);
            assertEquals(run, stream.run().orElseThrow().getRunId());
            assertFalse(stream.iterator().hasNext());
        }
    }

    @ParameterizedTest
    @ValueSource(longs = {5_000, 15_011, 30_013})
    void read_cutAfterAnyNumberOfBytes_returnsEachEventOnce(long bytes) {
        try (Client writer = client();
                TestProxy proxy = new TestProxy(TestServer.shared().target(), bytes);
                Client client = client(proxy.target())) {
            String run = record(writer, 600);
            ReadOptions options = ReadOptions.builder().consumer("cut").build();
            assertEquals(counted(1, 602), sequences(client.runs().read(run, options)));
            assertTrue(proxy.accepted() > 1, "no connection was cut");
        }
    }

    @ParameterizedTest
    @ValueSource(longs = {1, 17, 52})
    void position_inTheMiddleOfAFrame_continuesWithTheNextEvent(long last) {
        try (Client client = client();
                EventStream stream = client.runs().read(record(client, 50))) {
            for (Iterator<Event> events = stream.iterator(); events.next().getSequence() < last; ) {
                assertTrue(events.hasNext());
            }
            String position = stream.position();
            ReadOptions options = ReadOptions.builder().resumeToken(position).build();
            String run = stream.run().orElseThrow().getRunId();
            EventStream later = client.runs().read(run, options);
            assertEquals(position, later.position());
            assertEquals(counted(last + 1, 52), sequences(later));
            assertEquals(counted(last + 1, 52), sequences(stream)); // as does another loop over the stream itself
        }
    }

    @Test
    void read_consumerClosedItsStream_continuesAtOnce() {
        try (Client client = client()) {
            String run = record(client, 3_000);
            ReadOptions options = ReadOptions.builder().consumer("alice").build();
            for (int attempt = 0; attempt < 20; attempt++) {
                try (EventStream stream = client.runs().read(run, options)) {
                    assertEquals(1, stream.iterator().next().getSequence());
                }
            }
        }
    }

    @Test
    void read_rivalWithTakeOver_displacesTheFirst() throws InterruptedException {
        try (Client client = client();
                Client rival = client();
                RunProducer run = client.runs().start("noter")) {
            run.flush();
            ReadOptions options = ReadOptions.builder().consumer("alice").build();
            CountDownLatch opened = new CountDownLatch(1);
            CompletableFuture<Void> reading = CompletableFuture.runAsync(
                    () -> client.runs().read(run.id(), options).forEach(event -> opened.countDown()));
            opened.await();
            expectRefused(
                    ErrorReason.ERROR_REASON_CONSUMER_BUSY,
                    () -> sequences(rival.runs().read(run.id(), options)));
            ReadOptions takingOver =
                    ReadOptions.builder().consumer("alice").takeOver(true).build();
            try (EventStream stream = rival.runs().read(run.id(), takingOver)) {
                assertEquals(1, stream.iterator().next().getSequence());
                ExecutionException displaced = assertThrows(ExecutionException.class, reading::get);
                CallException cause = assertInstanceOf(CallException.class, displaced.getCause());
                assertEquals(ErrorReason.ERROR_REASON_STREAM_DISPLACED, cause.reason());
            }
        }
    }

    @Test
    void read_threadInterrupted_failsAndContinuesLater() {
        try (Client client = client();
                RunProducer run = client.runs().start("noter");
                EventStream stream = client.runs().read(run.id())) {
            run.flush();
            Iterator<Event> events = stream.iterator();
            assertEquals(1, events.next().getSequence());
            Thread.currentThread().interrupt();
            assertThrows(InterruptedCallException.class, events::hasNext);
            assertTrue(Thread.interrupted(), "the interrupt status is lost");
            run.finish();
            assertEquals(2, events.next().getSequence());
            assertFalse(events.hasNext());
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void read_closedByAnotherThread_failsAtOnce(boolean closesClient) throws InterruptedException {
        try (Client writer = client();
                Client client = client();
                RunProducer run = writer.runs().start("noter");
                EventStream stream = client.runs().read(run.id())) {
            run.flush();
            CountDownLatch opened = new CountDownLatch(1);
            CompletableFuture<Void> reading =
                    CompletableFuture.runAsync(() -> stream.forEach(event -> opened.countDown()));
            opened.await();
            (closesClient ? client : stream).close();
            ExecutionException failed = assertThrows(ExecutionException.class, () -> reading.get(20, TimeUnit.SECONDS));
            assertInstanceOf(ClosedException.class, failed.getCause());
            assertThrows(ClosedException.class, stream.iterator()::hasNext);
        } catch (RuntimeException failed) {
            throw failed;
        } catch (Exception impossible) { // of AutoCloseable
            throw new IllegalStateException(impossible);
        }
    }

    @Test
    void read_deadConnection_continuesOverAnotherOne() {
        try (TestProxy proxy = new TestProxy(TestServer.shared().target(), 0);
                Client writer = client();
                Client reader = client(proxy.target());
                RunProducer run = writer.runs().start("noter")) {
            run.flush();
            ReadOptions options = ReadOptions.builder()
                    .heartbeatInterval(Duration.ofSeconds(1))
                    .build();
            Iterator<Event> events = reader.runs().read(run.id(), options).iterator();
            assertEquals(1, events.next().getSequence());
            proxy.freeze(true); // the connection swallows everything; the next one does not
            run.finish();
            CompletableFuture.delayedExecutor(2_500, TimeUnit.MILLISECONDS).execute(() -> proxy.freeze(false));
            assertEquals(2, events.next().getSequence());
            assertFalse(events.hasNext());
            assertTrue(proxy.accepted() > 1, "no other connection was opened");
        }
    }

    @Test
    void read_unknownRunOrToken_namesTheReason() {
        try (Client client = client()) {
            CallException missing = expectRefused(
                    ErrorReason.ERROR_REASON_RUN_NOT_FOUND,
                    () -> client.runs().read("nowhere").text());
            assertEquals("nowhere", missing.metadata().get("run_id"));
            ReadOptions options = ReadOptions.builder().resumeToken("x").build();
            EventStream stream = client.runs().read(record(client, 1), options);
            expectRefused(ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID, () -> sequences(stream));
        }
    }

    @Test
    void result_runThatFailed_isNotMistakenForAnother() {
        try (Client client = client();
                RunProducer run = client.runs().start("noter")) {
            run.fail(new IllegalStateException("it broke"));
            RunNotSucceededException failed = assertThrows(
                    RunNotSucceededException.class,
                    () -> client.runs().read(run.id()).result());
            assertEquals("it broke", failed.result().getError().getMessage());
        }
    }
}
