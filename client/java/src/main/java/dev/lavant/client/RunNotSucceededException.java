package dev.lavant.client;

import dev.lavant.v1.RunFinished;

/** Error of asking for the result of a run that ended in another state than SUCCEEDED. */
public final class RunNotSucceededException extends LavantException {
    private static final long serialVersionUID = 1L;

    /** ID of the run. */
    private final String runId;
    /** End of the run. */
    private final RunFinished result;

    RunNotSucceededException(String runId, RunFinished result) {
        super("run %s ended as %s: %s"
                .formatted(
                        runId,
                        result.getState().name().replace("RUN_STATE_", ""),
                        result.getError().getMessage()));
        this.runId = runId;
        this.result = result;
    }

    /**
     * Return the ID of the run.
     *
     * @return the ID
     */
    public String runId() {
        return runId;
    }

    /**
     * Return how the run ended.
     *
     * @return the state, the error and the output
     */
    public RunFinished result() {
        return result;
    }
}
