package dev.lavant.client;

import static dev.lavant.client.Support.client;
import static dev.lavant.client.Support.expectRefused;
import static dev.lavant.client.Support.record;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.lavant.v1.ErrorReason;
import dev.lavant.v1.Evaluator;
import dev.lavant.v1.ListRunsRequest;
import dev.lavant.v1.RecordScoreRequest;
import dev.lavant.v1.Run;
import dev.lavant.v1.RunFilter;
import dev.lavant.v1.RunSettings;
import dev.lavant.v1.RunState;
import dev.lavant.v1.Score;
import dev.lavant.v1.ScoreFilter;
import dev.lavant.v1.ScoreRecorded;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Calls about runs and scores. */
@Timeout(60)
final class RunsTest {
    @Test
    void createGetListDelete_agreeWithEachOther() {
        try (Client client = client()) {
            Runs runs = client.runs();
            RunSettings settings = RunSettings.newBuilder()
                    .setName("listed")
                    .putLabels("test", "list")
                    .build();
            Run created = runs.create("", settings);
            assertEquals(created, runs.create(created.getRunId(), settings));
            RunSettings other = settings.toBuilder().setName("other").build();
            expectRefused(ErrorReason.ERROR_REASON_RUN_EXISTS, () -> runs.create(created.getRunId(), other));
            for (int number = 0; number < 4; number++) {
                runs.create("", settings);
            }
            var filter = RunFilter.newBuilder().putLabels("test", "list");
            List<Run> found = new ArrayList<>();
            runs.list(ListRunsRequest.newBuilder()
                            .setFilter(filter)
                            .setPageSize(2)
                            .build())
                    .forEach(found::add);
            assertEquals(5, found.size());
            expectRefused(ErrorReason.ERROR_REASON_RUN_NOT_ENDED, () -> runs.delete(created.getRunId()));
            String ended = record(client, 1);
            runs.delete(ended);
            expectRefused(ErrorReason.ERROR_REASON_RUN_NOT_FOUND, () -> runs.get(ended));
        }
    }

    @Test
    void watch_runsThatComeAndGo_returnsEachChange() {
        StartOptions options =
                StartOptions.builder().labels(Map.of("test", "watch")).build();
        RunFilter filter = RunFilter.newBuilder()
                .putLabels("test", "watch")
                .addStates(RunState.RUN_STATE_RUNNING)
                .build();
        try (TestServer server = new TestServer();
                Client client = client(server.target());
                RunProducer first = client.runs().start("first", options)) {
            first.flush();
            try (RunWatch watch = client.runs().watch(filter)) {
                Iterator<RunChange> changes = watch.iterator();
                assertEquals(first.id(), changes.next().runId());
                assertEquals(RunChange.Type.CAUGHT_UP, changes.next().type());
                server.restart(); // which the watch survives
                try (RunProducer second = client.runs().start("second", options)) {
                    RunChange begun = changes.next();
                    assertEquals(RunChange.Type.CHANGED, begun.type());
                    assertEquals(second.id(), begun.run().orElseThrow().getRunId());
                    second.finish();
                    assertEquals(RunChange.Type.LEFT, changes.next().type());
                    try (RunWatch later = client.runs().watch(filter, begun.resumeToken())) {
                        assertEquals(
                                RunChange.Type.LEFT, later.iterator().next().type());
                    }
                }
            }
        }
    }

    @Test
    void watch_tokenOfAnotherStore_startsAgain() {
        try (Client client = client();
                RunWatch watch = client.runs().watch(RunFilter.getDefaultInstance(), "of-another-store")) {
            assertEquals(RunChange.Type.RESET, watch.iterator().next().type());
        }
    }

    @Test
    void waitFor_runThatGoesOn_endsWithItsTime() {
        try (Client client = client();
                RunProducer run = client.runs().start("endless")) {
            run.flush();
            assertThrows(DeadlineException.class, () -> client.runs().waitFor(run.id(), Duration.ofMillis(200)));
            run.finish();
            Run ended = client.runs().waitFor(run.id(), Duration.ofSeconds(20));
            assertEquals(RunState.RUN_STATE_SUCCEEDED, ended.getState());
        }
    }

    @Test
    void scores_recordedTwice_areListedOnce() {
        try (Client client = client()) {
            String run = record(client, 1);
            Score score = Score.newBuilder()
                    .setName("helpful")
                    .setPassed(false)
                    .setEvaluator(Evaluator.newBuilder().setName("ada"))
                    .build();
            String id = client.scores().record(run, score);
            client.scores()
                    .record(RecordScoreRequest.newBuilder()
                            .setRunId(run)
                            .setScoreId(id)
                            .setScore(score)
                            .build());
            ScoreFilter filter = ScoreFilter.newBuilder().setSubjectRunId(run).build();
            List<String> names = new ArrayList<>();
            while (names.isEmpty()) { // lists may lag by moments
                for (ScoreRecorded recorded : client.scores().list(filter)) {
                    names.add(recorded.getScore().getName());
                }
            }
            assertEquals(List.of("helpful"), names);
        }
    }
}
