package dev.lavant.client;

import dev.lavant.v1.Event;
import dev.lavant.v1.StreamEnd;
import dev.lavant.v1.StreamEventsResponse;
import dev.lavant.v1.StreamOpened;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;

/** Place of a stream in the log: what its frames have brought, and which of their events were returned. Without I/O. */
final class ReadPosition {
    /** Resume token, with a sequence that it covers for sure. */
    private record Mark(String token, long covers) {}

    private final Deque<Event> rest = new ArrayDeque<>(); // of the last frame: received and not returned
    private Mark before; // the last frame
    private Mark after;
    private long last; // sequence up to which events were returned
    private StreamOpened opened = StreamOpened.getDefaultInstance();
    private StreamEnd end = StreamEnd.getDefaultInstance();
    private boolean isComplete;
    private boolean isCaughtUp;

    /** Create one that continues after a stored position; from the start for "". */
    ReadPosition(String stored) {
        // An ID of a server-sent event has the session of its reader as a third part.
        String[] parts = stored.split("~", 3);
        before = after = new Mark(parts[0], 0);
        if (parts.length > 1 && parts[1].matches("\\d{1,18}")) {
            last = Long.parseLong(parts[1]);
        }
    }

    /** Accept a frame, all of whose predecessors' events were returned. Return whether it has something new. */
    synchronized boolean accept(StreamEventsResponse frame) {
        if (frame.hasOpened()) {
            opened = frame.getOpened();
            if (!opened.getStartToken().isEmpty()) {
                after = new Mark(opened.getStartToken(), after.covers);
            }
        }
        before = after;
        List<Event> events = frame.getEvents().getEventsList();
        long covers =
                events.isEmpty() ? after.covers : events.get(events.size() - 1).getSequence();
        after = new Mark(frame.getResumeToken(), covers);
        events.stream().filter(event -> event.getSequence() > last).forEach(rest::add);
        boolean isNew = !rest.isEmpty() || frame.hasCaughtUp() && !isCaughtUp;
        isCaughtUp |= frame.hasCaughtUp();
        end = frame.getEnd();
        isComplete = frame.hasEnd() && !end.getReconnect();
        return isNew;
    }

    synchronized boolean hasEvent() {
        return !rest.isEmpty();
    }

    /** Return the next event, which counts as returned from now on. */
    synchronized Event next() {
        last = rest.element().getSequence();
        return rest.remove();
    }

    /** Return the token for the next call; "" for none. */
    synchronized String token() {
        return after.token;
    }

    /** Return the position after the last event that was returned. Within a frame it is the token before and a sequence. */
    synchronized String stored() {
        Mark mark = rest.isEmpty() ? after : before;
        return last > mark.covers ? mark.token + "~" + last : mark.token;
    }

    /** Return whether nothing follows the events that were received. */
    synchronized boolean isComplete() {
        return isComplete;
    }

    synchronized boolean isCaughtUp() {
        return isCaughtUp && rest.isEmpty();
    }

    synchronized StreamOpened opened() {
        return opened;
    }

    synchronized StreamEnd end() {
        return end;
    }
}
