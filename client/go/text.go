package lavant

import (
	"strings"

	pb "lavant.dev/go/lavantpb"
)

// TextProjection collects the text of a run's own agent, message by message. The zero value is ready.
//
// A message without deltas adds its text when it is complete, and one that is longer than its deltas the rest, so the
// text does not depend on the deltas. When a step is tried again, the text of its earlier attempts and of the steps
// within them is removed from Text; text that Add has returned stays with whoever has shown it.
//
// A step is nested within a tool's step, and within an agent's step inside another agent. The run itself is an agent
// once it writes text, requests a model or calls a tool outside of agents' steps: every agent's step that starts later is
// nested. Before that, agents' outermost steps are the run's own, as where one agent hands over to the next.
type TextProjection struct {
	places     map[string]place
	parents    map[string]string
	order      []string // of the steps: parents come before their children
	messages   map[string]*spoken
	spoken     []*spoken
	runIsAgent bool
}

// place is where a step is.
type place struct{ isNested, isInAgent bool }

// spoken is a message and its text so far. A silent one is no part of the text.
type spoken struct {
	id, step string
	text     strings.Builder
	silent   bool
	began    bool // its start was read
}

// Text returns the text so far.
func (t *TextProjection) Text() string {
	var whole strings.Builder
	for _, message := range t.spoken {
		if !message.silent {
			whole.WriteString(message.text.String())
		}
	}
	return whole.String()
}

// Add returns the text that an event adds.
func (t *TextProjection) Add(event *Event) string {
	switch payload := event.GetPayload().(type) {
	case *pb.Event_StepStarted:
		t.startStep(payload.StepStarted)
	case *pb.Event_MessageStarted:
		t.act(event.GetStepId())
		started := payload.MessageStarted
		message := t.message(started.GetMessageId(), event.GetStepId())
		message.began = true
		message.silent = !isAssistant(started.GetRole()) || t.places[event.GetStepId()].isNested
	case *pb.Event_TextDelta:
		t.act(event.GetStepId())
		message := t.message(payload.TextDelta.GetMessageId(), event.GetStepId())
		if !message.silent {
			message.text.WriteString(payload.TextDelta.GetText())
			return payload.TextDelta.GetText()
		}
	case *pb.Event_MessageFinished:
		t.act(event.GetStepId())
		return t.finish(payload.MessageFinished, event.GetStepId())
	case *pb.Event_ToolCallStarted:
		t.act(event.GetStepId())
	}
	return ""
}

// message returns a message, which begins here if it is not known.
func (t *TextProjection) message(id, step string) *spoken {
	message := t.messages[id]
	if message == nil {
		message = &spoken{id: id, step: step, silent: t.places[step].isNested}
		if t.messages == nil {
			t.messages = make(map[string]*spoken)
		}
		t.messages[id] = message
		t.spoken = append(t.spoken, message)
	}
	return message
}

func (t *TextProjection) finish(finished *pb.MessageFinished, step string) string {
	message := t.message(finished.GetMessageId(), step)
	if message.silent || !isAssistant(finished.GetRole()) {
		return ""
	}
	var whole strings.Builder
	for _, part := range finished.GetParts() {
		whole.WriteString(part.GetText())
	}
	shown := message.text.String()
	message.text.Reset()
	message.text.WriteString(whole.String())
	rest, fits := strings.CutPrefix(whole.String(), shown)
	// Of a message whose beginning was not read, nobody knows which part of the whole was shown.
	if !fits || !message.began && shown != "" {
		return ""
	}
	return rest
}

// act notes that something in a step does what agents do.
func (t *TextProjection) act(step string) {
	t.runIsAgent = t.runIsAgent || !t.places[step].isInAgent
}

func (t *TextProjection) startStep(started *pb.StepStarted) {
	if started.GetAttempt() > 1 {
		t.drop(started.GetStepId())
	}
	if t.places == nil {
		t.places, t.parents = make(map[string]place), make(map[string]string)
	}
	around := t.places[started.GetParentStepId()]
	isAgent, isTool := started.GetKind() == StepAgent, started.GetKind() == StepTool
	if (isTool || started.GetKind() == StepModelRequest) && !around.isInAgent {
		t.runIsAgent = true
	}
	t.places[started.GetStepId()] = place{
		isNested:  around.isNested || isTool || isAgent && (around.isInAgent || t.runIsAgent),
		isInAgent: around.isInAgent || isAgent,
	}
	t.parents[started.GetStepId()] = started.GetParentStepId()
	t.order = append(t.order, started.GetStepId())
}

// drop removes the text of a step and of all steps within it.
func (t *TextProjection) drop(step string) {
	dropped := map[string]bool{step: true}
	kept := t.order[:0:0]
	for _, id := range t.order {
		if dropped[id] || dropped[t.parents[id]] {
			dropped[id] = true
		} else {
			kept = append(kept, id)
		}
	}
	t.order = kept
	for _, message := range t.spoken {
		if dropped[message.step] {
			message.silent = true
		}
	}
}

// isAssistant reports whether a role is an assistant's, as an unset one is taken to be.
func isAssistant(role Role) bool { return role == RoleAssistant || role == pb.Role_ROLE_UNSPECIFIED }
