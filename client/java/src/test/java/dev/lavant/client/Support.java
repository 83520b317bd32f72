package dev.lavant.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.lavant.v1.CustomEvent;
import dev.lavant.v1.ErrorReason;
import dev.lavant.v1.Event;
import dev.lavant.v1.EventType;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.LongStream;
import org.junit.jupiter.api.function.Executable;

/** Clients, runs and expectations of the tests. */
final class Support {
    private Support() {}

    static Client client() {
        return client(TestServer.shared().target());
    }

    static Client client(String... targets) {
        return Client.builder().targets(targets).build();
    }

    /** Return the event of a counted note. */
    static Event note(int number) {
        var custom = CustomEvent.newBuilder().setName("test.note").setValueJson(Integer.toString(number));
        return Event.newBuilder().setCustom(custom).build();
    }

    /** Publish a run of so many notes, and its end; return its ID. */
    static String record(Client client, int notes) {
        try (RunProducer run = client.runs().start("noter")) {
            for (int number = 0; number < notes; number++) {
                run.publish(note(number));
            }
            run.finish();
            return run.id();
        }
    }

    /** Read a stream to its end, and return the sequences of the events. */
    static List<Long> sequences(EventStream stream) {
        List<Long> found = new ArrayList<>();
        stream.forEach(event -> found.add(event.getSequence()));
        return found;
    }

    static List<Long> counted(long first, long last) {
        return LongStream.rangeClosed(first, last).boxed().toList();
    }

    /** Expect that a run has the notes from 0 on, each once and in order. */
    static void expectNotes(Client client, String run, int count) {
        List<Long> found = new ArrayList<>();
        for (Event event : client.runs().events(run, EventType.EVENT_TYPE_CUSTOM)) {
            found.add(Long.parseLong(event.getCustom().getValueJson()));
        }
        assertEquals(counted(0, count - 1), found);
    }

    /** Expect that something fails for a reason; return the error. */
    static CallException expectRefused(ErrorReason reason, Executable work) {
        CallException refused = assertThrows(CallException.class, work);
        assertEquals(reason, refused.reason(), refused.getMessage());
        return refused;
    }
}
