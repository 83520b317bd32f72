package dev.lavant.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.lavant.v1.Event;
import dev.lavant.v1.MessageFinished;
import dev.lavant.v1.MessagePart;
import dev.lavant.v1.MessageStarted;
import dev.lavant.v1.Role;
import dev.lavant.v1.StepKind;
import dev.lavant.v1.StepStarted;
import dev.lavant.v1.TextDelta;
import java.util.List;
import org.junit.jupiter.api.Test;

/** The text of a run's own agent. */
final class TextProjectionTest {
    private static Event step(String id, String parent, StepKind kind, int attempt) {
        var started = StepStarted.newBuilder()
                .setStepId(id)
                .setParentStepId(parent)
                .setKind(kind)
                .setAttempt(attempt);
        return Event.newBuilder().setStepId(id).setStepStarted(started).build();
    }

    private static Event begun(String message, String step, Role role) {
        var started = MessageStarted.newBuilder().setMessageId(message).setRole(role);
        return Event.newBuilder().setStepId(step).setMessageStarted(started).build();
    }

    private static Event delta(String message, String step, String text) {
        var delta = TextDelta.newBuilder().setMessageId(message).setText(text);
        return Event.newBuilder().setStepId(step).setTextDelta(delta).build();
    }

    private static Event whole(String message, String step, String text) {
        var finished = MessageFinished.newBuilder()
                .setMessageId(message)
                .setRole(Role.ROLE_ASSISTANT)
                .addParts(MessagePart.newBuilder().setReasoning("Hm."))
                .addParts(MessagePart.newBuilder().setText(text));
        return Event.newBuilder().setStepId(step).setMessageFinished(finished).build();
    }

    private static void expect(String text, Event... events) {
        TextProjection projection = new TextProjection();
        List.of(events).forEach(projection::add);
        assertEquals(text, projection.text());
    }

    @Test
    void text_withAndWithoutDeltas_isTheSame() {
        Event begun = begun("m", "", Role.ROLE_ASSISTANT);
        expect("It is", begun, delta("m", "", "It "), delta("m", "", "is"));
        expect("It is cold.", begun, delta("m", "", "It "), whole("m", "", "It is cold."));
        expect("It is cold.", begun, whole("m", "", "It is cold."));
    }

    @Test
    void text_ofOtherAuthors_isLeftOut() {
        expect("Cold.", begun("q", "", Role.ROLE_USER), delta("q", "", "How is it?"), whole("m", "", "Cold."));
    }

    @Test
    void text_ofNestedAgents_isLeftOut() {
        expect(
                "Cold.",
                step("model", "", StepKind.STEP_KIND_MODEL_REQUEST, 1),
                step("agent", "", StepKind.STEP_KIND_AGENT, 1),
                whole("n", "agent", "I searched."),
                step("tool", "", StepKind.STEP_KIND_TOOL, 1),
                whole("t", "tool", "I measured."),
                whole("m", "model", "Cold."));
    }

    @Test
    void text_ofAgentsAfterTheRunsOwnText_isLeftOut() {
        expect(
                "I will ask.",
                whole("m", "", "I will ask."),
                step("agent", "", StepKind.STEP_KIND_AGENT, 1),
                whole("n", "agent", "I searched."));
    }

    @Test
    void text_ofAgentsThatHandOver_isKept() {
        expect(
                "One. Two.",
                step("one", "", StepKind.STEP_KIND_AGENT, 1),
                whole("m", "one", "One. "),
                step("two", "", StepKind.STEP_KIND_AGENT, 1),
                whole("n", "two", "Two."));
    }

    @Test
    void text_ofStepThatIsTriedAgain_isThatOfTheLastAttempt() {
        expect(
                "Right.",
                step("one", "", StepKind.STEP_KIND_WORKFLOW, 1),
                step("within", "one", StepKind.STEP_KIND_MODEL_REQUEST, 1),
                whole("m", "within", "Wrong."),
                step("one", "", StepKind.STEP_KIND_WORKFLOW, 2),
                whole("n", "one", "Right."));
    }
}
