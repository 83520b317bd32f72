package dev.lavant.client;

import dev.lavant.v1.Event;
import dev.lavant.v1.MessageFinished;
import dev.lavant.v1.MessagePart;
import dev.lavant.v1.MessageStarted;
import dev.lavant.v1.ReasoningDelta;
import dev.lavant.v1.Role;
import dev.lavant.v1.TextDelta;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Message of a model, a person or a tool: deltas while it is open, and all of it when it is closed, so that readers may skip the
 * deltas. Text that exceeds the size of an event continues in further messages.
 */
public final class Message implements AutoCloseable {
    private static final int LONG_TEXT = 65_000; // characters, of up to 3 bytes each

    private final Publisher publisher;
    private final String stepId;
    private final Role role;
    private final ReentrantLock lock = new ReentrantLock();
    private final List<MessagePart> parts = new ArrayList<>();
    private final StringBuilder open = new StringBuilder(); // the last part
    private boolean isReasoning; // the last part is
    private int length; // of all parts
    private String id;

    Message(Publisher publisher, String stepId, Role role) {
        this.publisher = publisher;
        this.stepId = stepId;
        this.role = role;
        start();
    }

    /**
     * Append text.
     *
     * @param text may be empty
     */
    public void text(String text) {
        append(text, false);
    }

    /**
     * Append reasoning of a model.
     *
     * @param text may be empty
     */
    public void reasoning(String text) {
        append(text, true);
    }

    private void append(String text, boolean isReasoning) {
        lock.lock();
        try {
            if (id == null) {
                throw new IllegalStateException("the message has ended");
            }
            split(text, isReasoning);
        } finally {
            lock.unlock();
        }
    }

    private void split(String text, boolean isReasoning) {
        for (int start = 0; start < text.length(); ) {
            if (length + 2 > LONG_TEXT) { // no space for both halves of a character
                end();
                start();
            }
            int end = Math.min(text.length(), start + LONG_TEXT - length);
            if (end < text.length() && Character.isHighSurrogate(text.charAt(end - 1))) {
                end--;
            }
            if (isReasoning != this.isReasoning) {
                closePart();
                this.isReasoning = isReasoning;
            }
            String piece = text.substring(start, end);
            publish(delta(piece), false);
            open.append(piece);
            length += piece.length();
            start = end;
        }
    }

    private Event.Builder delta(String text) {
        return isReasoning
                ? Event.newBuilder()
                        .setReasoningDelta(ReasoningDelta.newBuilder()
                                .setMessageId(id)
                                .setPartIndex(parts.size())
                                .setText(text))
                : Event.newBuilder()
                        .setTextDelta(TextDelta.newBuilder()
                                .setMessageId(id)
                                .setPartIndex(parts.size())
                                .setText(text));
    }

    private void start() {
        id = Ids.sorted();
        parts.clear();
        length = 0;
        var started = MessageStarted.newBuilder().setMessageId(id).setRole(role);
        publish(Event.newBuilder().setMessageStarted(started), false);
    }

    private void closePart() {
        if (!open.isEmpty()) {
            MessagePart.Builder part = MessagePart.newBuilder();
            parts.add((isReasoning ? part.setReasoning(open.toString()) : part.setText(open.toString())).build());
            open.setLength(0);
        }
    }

    private void end() {
        closePart();
        var finished =
                MessageFinished.newBuilder().setMessageId(id).setRole(role).addAllParts(parts);
        id = null;
        publish(Event.newBuilder().setMessageFinished(finished), true);
    }

    /** End the message. No effect on one that has ended. */
    @Override
    public void close() {
        lock.lock();
        try {
            if (id != null) {
                end();
            }
        } finally {
            lock.unlock();
        }
    }

    private void publish(Event.Builder event, boolean isClosing) {
        publisher.publish(event.setStepId(stepId).build(), isClosing, false);
    }
}
