package dev.lavant.client;

import dev.lavant.v1.Event;
import dev.lavant.v1.MessageFinished;
import dev.lavant.v1.MessagePart;
import dev.lavant.v1.Role;
import dev.lavant.v1.StepKind;
import dev.lavant.v1.StepStarted;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/**
 * Text of a run's own agent, message by message.
 *
 * <p>A message without deltas adds its text when it is complete, and one that is longer than its deltas the rest, so the text
 * does not depend on the deltas. When a step is tried again, the text of its earlier attempts and of the steps within them is
 * removed.
 *
 * <p>A step is nested within a tool's step, and within an agent's step inside another agent. The run itself is an agent once it
 * writes text, requests a model or calls a tool outside of agents' steps: every agent's step that starts later is nested.
 * Before that, agents' outermost steps are the run's own, as where one agent hands over to the next.
 */
final class TextProjection {
    private record Step(String parent, boolean isNested, boolean isInAgent) {}

    /** Message and its text so far. A silent one is no part of the text. */
    private static final class Message {
        private final String step;
        private String text = "";
        private boolean isSilent;

        Message(String step, boolean isSilent) {
            this.step = step;
            this.isSilent = isSilent;
        }
    }

    private static final Step RUN = new Step("", false, false);

    private final Map<String, Step> steps = new LinkedHashMap<>(); // parents come before their children
    private final Map<String, Message> messages = new LinkedHashMap<>();
    private final Map<String, StringBuilder> open = new HashMap<>();
    private boolean isAgent;

    /** Return the text so far. */
    String text() {
        StringBuilder whole = new StringBuilder();
        messages.forEach((id, message) -> {
            if (!message.isSilent) {
                whole.append(open.containsKey(id) ? open.get(id) : message.text);
            }
        });
        return whole.toString();
    }

    /** Take an event of the run. */
    void add(Event event) {
        String step = event.getStepId();
        switch (event.getPayloadCase()) {
            case STEP_STARTED -> start(event.getStepStarted());
            case MESSAGE_STARTED -> {
                act(step);
                message(event.getMessageStarted().getMessageId(), step).isSilent =
                        !isAssistant(event.getMessageStarted().getRole()) || place(step).isNested;
            }
            case TEXT_DELTA -> {
                act(step);
                String id = event.getTextDelta().getMessageId();
                message(id, step);
                open.computeIfAbsent(id, any -> new StringBuilder())
                        .append(event.getTextDelta().getText());
            }
            case MESSAGE_FINISHED -> {
                act(step);
                finish(event.getMessageFinished(), step);
            }
            case TOOL_CALL_STARTED -> act(step);
            default -> {}
        }
    }

    private Message message(String id, String step) {
        return messages.computeIfAbsent(id, any -> new Message(step, place(step).isNested));
    }

    private void finish(MessageFinished finished, String step) {
        Message message = message(finished.getMessageId(), step);
        open.remove(finished.getMessageId());
        message.isSilent |= !isAssistant(finished.getRole());
        StringBuilder whole = new StringBuilder();
        finished.getPartsList().stream().map(MessagePart::getText).forEach(whole::append);
        message.text = whole.toString();
    }

    private Step place(String step) {
        return steps.getOrDefault(step, RUN);
    }

    /** Note that something in a step does what agents do. */
    private void act(String step) {
        isAgent |= !place(step).isInAgent;
    }

    private void start(StepStarted started) {
        if (started.getAttempt() > 1) {
            drop(started.getStepId());
        }
        Step around = place(started.getParentStepId());
        boolean startsAgent = started.getKind() == StepKind.STEP_KIND_AGENT;
        boolean startsTool = started.getKind() == StepKind.STEP_KIND_TOOL;
        isAgent |= (startsTool || started.getKind() == StepKind.STEP_KIND_MODEL_REQUEST) && !around.isInAgent;
        boolean isNested = around.isNested || startsTool || startsAgent && (around.isInAgent || isAgent);
        steps.put(started.getStepId(), new Step(started.getParentStepId(), isNested, around.isInAgent || startsAgent));
    }

    /** Remove the text of a step and of all steps within it. */
    private void drop(String step) {
        Set<String> dropped = new HashSet<>(Set.of(step));
        steps.forEach((id, place) -> {
            if (dropped.contains(place.parent)) {
                dropped.add(id);
            }
        });
        dropped.forEach(steps::remove);
        for (Message message : messages.values()) {
            message.isSilent |= dropped.contains(message.step);
        }
    }

    /** Return whether a role is an assistant's, as an unset one is taken to be. */
    private static boolean isAssistant(Role role) {
        return role == Role.ROLE_ASSISTANT || role == Role.ROLE_UNSPECIFIED;
    }
}
