package dev.lavant.client;

import dev.lavant.v1.Run;
import java.util.Optional;

/**
 * One step of a {@link RunWatch}.
 *
 * @param type what has changed
 * @param runId ID of the run; empty for CAUGHT_UP and RESET
 * @param run the run, of CHANGED only
 * @param resumeToken position to pass to a later watch once this change is handled, valid for 24 hours; changes that came
 *     together share the position before them, until the last one
 */
public record RunChange(Type type, String runId, Optional<Run> run, String resumeToken) {
    /** Types of changes. */
    public enum Type {
        /** The run matches, and was created or has changed its state. */
        CHANGED,
        /** The run has changed its state, and does not match any more. */
        LEFT,
        /** The run was deleted. It may be one that never matched. */
        DELETED,
        /** All runs that match were returned. Once per watch. */
        CAUGHT_UP,
        /** The position is older than what the server keeps. Forget all runs: those that match follow. */
        RESET
    }
}
