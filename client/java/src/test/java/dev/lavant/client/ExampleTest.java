package dev.lavant.client;

import static dev.lavant.client.Support.client;
import static dev.lavant.client.Support.record;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.lavant.v1.Event;
import dev.lavant.v1.Role;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The examples of README.md, which are parts of this file. */
@Timeout(60)
final class ExampleTest {
    private static final Pattern BLOCK = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL);

    private static String withoutSpace(String code) {
        return code.replaceAll("\\s", "");
    }

    @Test
    void readme_examples_arePartsOfThisFile() throws IOException {
        String file = withoutSpace(Files.readString(Path.of("src/test/java/dev/lavant/client/ExampleTest.java")));
        List<MatchResult> blocks =
                BLOCK.matcher(Files.readString(Path.of("README.md"))).results().toList();
        assertTrue(blocks.size() > 2);
        for (MatchResult block : blocks) {
            assertTrue(file.contains(withoutSpace(block.group(1))), block.group(1));
        }
    }

    @Test
    void readme_first_publishesAndReads() {
        try (Client client = client()) {
            String id;
            try (RunProducer run = client.runs().start("weather-agent")) {
                try (Message message = run.message(Role.ROLE_ASSISTANT)) {
                    message.text("It ");
                    message.text("is cold.");
                }
                run.finish("\"cold\""); // returns when all of it is durable
                id = run.id();
            }

            for (Event event : client.runs().read(id)) {
                System.out.println(event.getSequence() + " " + event.getPayloadCase());
            }

            assertEquals("It is cold.", client.runs().read(id).text());
            assertEquals("\"cold\"", client.runs().read(id).result().getOutputJson());
        }
    }

    @Test
    void readme_position_continuesAfterARestart() {
        try (Client client = client()) {
            Store store = new Store();
            String id = record(client, 5);
            store.last = 3;

            ReadOptions options = ReadOptions.builder()
                    .consumer("alice@example.org")
                    .resumeToken(store.position())
                    .build();
            try (EventStream stream = client.runs().read(id, options)) {
                for (Event event : stream) {
                    store.handle(event);
                    store.setPosition(stream.position());
                }
            } catch (StoppedException stopped) {
                // As if the process had ended here.
            }

            store.last = 7;
            ReadOptions again = ReadOptions.builder()
                    .consumer("alice@example.org")
                    .resumeToken(store.position())
                    .build();
            try (EventStream stream = client.runs().read(id, again)) {
                stream.forEach(store::handle);
            }
            assertEquals(List.of(1L, 2L, 3L, 4L, 5L, 6L, 7L), store.handled);
        }
    }

    @Test
    void readme_work_stopsWhenItIsCancelled() {
        try (Client client = client();
                RunProducer run = client.runs().start("worker")) {
            run.flush();
            client.runs().cancel(run.id(), "enough");
            run.cancelled().toCompletableFuture().join();

            try {
                for (String source : List.of("yr.no", "met.no")) {
                    run.throwIfCancelled();
                    work(source);
                }
                run.finish();
            } catch (RuntimeException failed) { // CANCELLED for a CancellationException, otherwise FAILED
                run.fail(failed);
            }

            assertEquals(
                    "RUN_STATE_CANCELLED",
                    client.runs().get(run.id()).getState().name());
        }
    }

    private static void work(String source) {
        throw new CancellationException("never called with " + source);
    }

    private static final class StoppedException extends RuntimeException {
        private static final long serialVersionUID = 1L;
    }

    /** Application that stops when it is asked for more than its last event. */
    private static final class Store {
        private final List<Long> handled = new ArrayList<>();
        private String position = "";
        private long last;

        String position() {
            return position;
        }

        void setPosition(String position) {
            this.position = position;
        }

        void handle(Event event) {
            if (event.getSequence() > last) {
                throw new StoppedException();
            }
            handled.add(event.getSequence());
        }
    }
}
