package dev.lavant.client;

import dev.lavant.v1.ListScoresRequest;
import dev.lavant.v1.RecordScoreRequest;
import dev.lavant.v1.Score;
import dev.lavant.v1.ScoreFilter;
import dev.lavant.v1.ScoreRecorded;
import dev.lavant.v1.ScoreServiceGrpc;

/** Calls about scores, at {@link Client#scores}. They are repeated as those of {@link Runs}. */
public final class Scores {
    private final Calls calls;

    Scores(Calls calls) {
        this.calls = calls;
    }

    /**
     * Record a score of a run, such as a user's feedback. The run need not have ended.
     *
     * @param run ID of the run
     * @param score name, value and evaluator
     * @return the ID of the score
     */
    public String record(String run, Score score) {
        var request = RecordScoreRequest.newBuilder().setRunId(run).setScore(score);
        return record(request.setScoreId(Ids.sorted()).build());
    }

    /**
     * Record a score with all settings of the request: a score is recorded once per ID.
     *
     * @param request with the ID of the score
     * @return the ID of the score
     */
    public String record(RecordScoreRequest request) {
        calls.call(ScoreServiceGrpc.getRecordScoreMethod(), request);
        return request.getScoreId();
    }

    /**
     * Return the scores that match, those of the latest runs first, page by page as they are used.
     *
     * @param filter the default instance matches all
     * @return the scores; each iteration lists them again
     */
    public Iterable<ScoreRecorded> list(ScoreFilter filter) {
        return () -> new Pages<>("", token -> {
            var request = ListScoresRequest.newBuilder().setFilter(filter).setPageToken(token);
            var response = calls.call(ScoreServiceGrpc.getListScoresMethod(), request.build());
            return new Pages.Page<>(response.getScoresList(), response.getNextPageToken());
        });
    }
}
