package dev.lavant.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;

import org.junit.jupiter.api.Test;

/** The sessions of consumers. */
final class SessionTest {
    private final Session.Memory sessions = new Session.Memory();

    @Test
    void begin_consumerThatLeft_continuesItsSession() {
        Session first = sessions.begin("run", "alice", false);
        assertEquals(1, first.next());
        assertNotSame(first, sessions.begin("run", "bob", false));
        assertNotSame(first, sessions.begin("other", "alice", false));
        first.leave();
        assertSame(first, sessions.begin("run", "alice", false));
        assertEquals(2, first.next());
    }

    @Test
    void begin_consumerThatReads_isARival() {
        Session first = sessions.begin("run", "alice", false);
        first.next();
        assertNotSame(first, sessions.begin("run", "alice", false));
    }

    @Test
    void begin_toTakeOver_isANewSession() {
        Session first = sessions.begin("run", "alice", false);
        Session second = sessions.begin("run", "alice", true);
        assertNotSame(first, second);
        assertSame(second, sessions.begin("run", "alice", false));
    }

    @Test
    void begin_manyConsumers_forgetsTheOldestOnly() {
        Session open = sessions.begin("run", "open", false);
        open.next();
        Session first = sessions.begin("run", "first", false);
        Session last = first;
        for (int number = 0; number < 1_000; number++) {
            last = sessions.begin("run", "consumer-" + number, false);
        }
        assertSame(last, sessions.begin("run", "consumer-999", false));
        assertNotSame(first, sessions.begin("run", "first", false));
        open.leave();
        assertSame(open, sessions.begin("run", "open", false));
    }
}
