package dev.lavant.client;

import static dev.lavant.client.Support.client;
import static dev.lavant.client.Support.expectNotes;
import static dev.lavant.client.Support.expectRefused;
import static dev.lavant.client.Support.note;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.lavant.v1.BatchReceipt;
import dev.lavant.v1.ErrorReason;
import dev.lavant.v1.Event;
import dev.lavant.v1.EventType;
import dev.lavant.v1.Role;
import dev.lavant.v1.Run;
import dev.lavant.v1.RunState;
import dev.lavant.v1.TextDelta;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Publishing of runs, over connections that are cut. */
@Timeout(60)
final class PublishingTest {
    private static final String NOBODY = "127.0.0.1:1";

    @Test
    void publish_connectionsCutAllTheTime_storesEachEventOnce() {
        int count = 3_000;
        try (TestProxy proxy = new TestProxy(TestServer.shared().target(), 0);
                Client client = client(proxy.target());
                RunProducer run = client.runs().start("noter")) {
            for (int number = 0; number < count; number++) {
                if (number % 300 == 100) { // what is sent from here on is lost with the connection
                    run.flush();
                    proxy.freeze(true);
                } else if (number % 300 == 200) {
                    proxy.cut();
                    proxy.freeze(false);
                }
                run.publish(note(number));
            }
            proxy.cut();
            BatchReceipt receipt = run.finish();
            assertEquals(count + 2, receipt.getLastSequence());
            assertEquals(count + 2, receipt.getLastProducerSequence());
            expectNotes(client, run.id(), count);
        }
    }

    @Test
    void publish_serverKilled_storesEachEventOnce() {
        try (TestServer server = new TestServer();
                Client client = client(server.target());
                RunProducer run = client.runs().start("noter")) {
            for (int number = 0; number < 200; number++) {
                if (number == 100) {
                    server.restart();
                }
                run.publish(note(number));
            }
            run.finish();
            expectNotes(client, run.id(), 200);
        }
    }

    @Test
    void publish_higherEpoch_fencesTheFirst() {
        ProducerOptions.Builder producer = ProducerOptions.builder().id("p");
        StartOptions options = StartOptions.builder().producer(producer.build()).build();
        try (Client client = client();
                RunProducer first = client.runs().start("noter", options)) {
            first.flush();
            try (RunProducer second =
                    client.runs().continueRun(first.id(), producer.epoch(2).build())) {
                second.publish(note(0));
                second.flush();
                first.publish(note(1));
                expectRefused(ErrorReason.ERROR_REASON_PRODUCER_FENCED, first::flush);
                expectRefused(ErrorReason.ERROR_REASON_PRODUCER_FENCED, () -> first.publish(note(2)));
                second.finish();
            }
            expectNotes(client, first.id(), 1);
        }
    }

    @Test
    void publish_invalidEvent_namesTheField() {
        try (Client client = client();
                RunProducer run = client.runs().start("noter")) {
            var text = TextDelta.newBuilder().setMessageId("never-started").setText("hello");
            run.publish(Event.newBuilder().setTextDelta(text).build());
            CallException refused = expectRefused(ErrorReason.ERROR_REASON_INVALID_FIELD, run::finish);
            assertEquals(1, refused.violations().size());
            assertTrue(refused.violations().get(0).getField().contains("message_id"), refused.getMessage());
        }
    }

    @Test
    void publish_eventThatNoBatchCanHold_failsAtOnce() {
        try (Client client = client();
                RunProducer run = client.runs().start("noter")) {
            Event.Builder large = note(0).toBuilder();
            large.getCustomBuilder().setValueJson("1".repeat(1 << 20));
            assertThrows(IllegalArgumentException.class, () -> run.publish(large.build()));
            run.finish();
            assertThrows(IllegalStateException.class, () -> run.publish(note(1)));
        }
    }

    @Test
    void publish_fullOutbox_waitsUntilTheProducerIsClosed() {
        ProducerOptions producer = ProducerOptions.builder().queueBytes(1_000).build();
        try (Client client = client(NOBODY)) {
            RunProducer run = client.runs()
                    .start("noter", StartOptions.builder().producer(producer).build());
            CompletableFuture<Void> filled = new CompletableFuture<>();
            CompletableFuture<Void> publishing = CompletableFuture.runAsync(() -> {
                for (int number = 0; true; number++) {
                    if (number == 5) { // of some 100 bytes each, beside the beginning of the run
                        filled.complete(null);
                    }
                    run.publish(note(number));
                }
            });
            filled.join();
            run.close();
            ExecutionException failed = assertThrows(ExecutionException.class, publishing::get);
            assertEquals(ClosedException.class, failed.getCause().getClass());
            assertThrows(ClosedException.class, () -> run.publish(note(0)));
        }
    }

    @Test
    void publish_ownClockAndIds_areThoseOfTheEvents() {
        Instant time = Instant.ofEpochSecond(1_700_000_000L, 5_000);
        ProducerOptions producer = ProducerOptions.builder()
                .id("p")
                .epoch(3)
                .clock(Clock.fixed(time, ZoneOffset.UTC))
                .build();
        try (Client client = client();
                RunProducer run = client.runs()
                        .start(
                                "noter",
                                StartOptions.builder().producer(producer).build())) {
            run.publish(note(0).toBuilder().setEventId("mine").build());
            run.finish();
            List<String> ids = new ArrayList<>();
            for (Event event : client.runs().events(run.id())) {
                ids.add(event.getEventId());
                assertEquals(time.getEpochSecond(), event.getEventTime().getSeconds());
                assertEquals(time.getNano(), event.getEventTime().getNanos());
            }
            assertEquals(List.of("p.3.1", "mine", "p.3.3"), ids);
        }
    }

    @Test
    void flush_noServer_waitsForItsTimeOnly() {
        try (Client client = client(NOBODY);
                RunProducer run = client.runs().start("noter")) {
            assertThrows(DeadlineException.class, () -> run.flush(Duration.ofMillis(50)));
            Thread.currentThread().interrupt();
            assertThrows(InterruptedCallException.class, run::flush);
            assertTrue(Thread.interrupted(), "the interrupt status is lost");
        }
    }

    @Test
    void cancel_openRun_reachesItsProducer() throws Exception {
        try (Client client = client();
                RunProducer run = client.runs().start("worker")) {
            run.flush();
            run.throwIfCancelled();
            client.runs().cancel(run.id(), "no longer needed");
            assertEquals(
                    "no longer needed", run.cancelled().toCompletableFuture().get());
            CancellationException cancelled = assertThrows(CancellationException.class, run::throwIfCancelled);
            run.fail(cancelled);
            Run ended = client.runs().waitFor(run.id(), Duration.ofSeconds(20));
            assertEquals(RunState.RUN_STATE_CANCELLED, ended.getState());
            assertEquals("no longer needed", ended.getResult().getError().getMessage());
        }
    }

    @Test
    void producer_silentRun_isNotAbandoned() {
        StartOptions options =
                StartOptions.builder().producerTimeout(Duration.ofSeconds(1)).build();
        try (Client client = client();
                RunProducer run = client.runs().start("thinker", options)) {
            run.flush();
            assertThrows(DeadlineException.class, () -> client.runs().waitFor(run.id(), Duration.ofSeconds(3)));
            run.finish();
        }
    }

    @Test
    void message_longerThanAnEvent_continuesInFurtherOnes() {
        String text = "\uD83D\uDE00".repeat(80_000); // two chars each, which an event must not separate
        try (Client client = client();
                RunProducer run = client.runs().start("talker")) {
            try (Message message = run.message(Role.ROLE_ASSISTANT)) {
                message.reasoning("Hm.");
                message.text(text);
            }
            run.finish();
            assertEquals(text, client.runs().read(run.id()).text());
            var messages = client.runs().events(run.id(), EventType.EVENT_TYPE_MESSAGE_FINISHED);
            assertEquals(3, StreamSupport.stream(messages.spliterator(), false).count());
        }
    }
}
