package dev.lavant.client;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** Sequence of delays: doubled from 0.1 s to 5 s, half of each random. */
final class Delays {
    private static final long SHORTEST = Duration.ofMillis(100).toNanos();
    private static final long LONGEST = Duration.ofSeconds(5).toNanos();

    private long ceiling;

    /** Return the next delay, added to the one that the server asks for. */
    Duration next(Duration asked) {
        ceiling = Math.min(Math.max(2 * ceiling, SHORTEST), LONGEST);
        return asked.plusNanos(ceiling / 2 + ThreadLocalRandom.current().nextLong(ceiling / 2));
    }

    /** Start again with the shortest one. */
    void reset() {
        ceiling = 0;
    }

    boolean isReset() {
        return ceiling == 0;
    }
}
