package lavant

import (
	"context"

	pb "lavant.dev/go/lavantpb"
)

const maxErrorMessage = 8_192 // bytes

// scope is where events belong: a step, or the run itself. RunProducer and Step have its methods.
type scope struct {
	run  *RunProducer
	step string
}

// Publish queues an event of the contract, and waits while the outbox is full. It sets the event's ID and time, and the
// step, unless they are set. The caller must not change the event afterwards.
func (s scope) Publish(ctx context.Context, event *Event) error {
	if event.StepId == "" {
		event.StepId = s.step
	}
	return s.run.publisher.publish(ctx, event, false, false)
}

// close queues an event that ends something that has begun.
func (s scope) close(event *Event) error {
	event.StepId = s.step
	return s.run.publisher.publish(context.Background(), event, true, false)
}

// Text appends text to the assistant's message that is open in this step by its text, and starts one if none is. It
// ends where the next step, tool call or message of the step begins.
func (s scope) Text(ctx context.Context, text string) error {
	message, err := s.said(ctx)
	if err != nil {
		return err
	}
	return message.Text(ctx, text)
}

// Reasoning appends reasoning as Text appends text.
func (s scope) Reasoning(ctx context.Context, text string) error {
	message, err := s.said(ctx)
	if err != nil {
		return err
	}
	return message.Reasoning(ctx, text)
}

// said returns the step's message that was started by its text.
func (s scope) said(ctx context.Context) (*Message, error) {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	message := s.run.current[s.step]
	if message != nil {
		return message, nil
	}
	message = &Message{scope: s, role: RoleAssistant, model: s.run.model}
	if err := message.start(ctx); err != nil {
		return nil, err
	}
	s.run.current[s.step] = message
	return message, nil
}

// EndMessage finishes the message that Text or Reasoning started in this step, if one is open.
func (s scope) EndMessage() error {
	s.run.mu.Lock()
	message := s.run.current[s.step]
	delete(s.run.current, s.step)
	s.run.mu.Unlock()
	if message == nil {
		return nil
	}
	return message.End()
}

// Message starts a message of an author.
func (s scope) Message(ctx context.Context, role Role, model string) (*Message, error) {
	if err := s.EndMessage(); err != nil {
		return nil, err
	}
	message := &Message{scope: s, role: role, model: model}
	return message, message.start(ctx)
}

// Step starts a step within this one.
func (s scope) Step(ctx context.Context, name string, options StepOptions) (*Step, error) {
	if err := s.EndMessage(); err != nil {
		return nil, err
	}
	return startStep(ctx, s, name, options)
}

// Tool starts a call of a tool. The arguments are encoded as JSON. With an empty id, a new one is chosen; otherwise it
// is the model's own.
func (s scope) Tool(ctx context.Context, name string, arguments any, id string) (*ToolCall, error) {
	if err := s.EndMessage(); err != nil {
		return nil, err
	}
	return startTool(ctx, s, name, arguments, id)
}

// Progress reports how many units are done. A negative number is not known.
func (s scope) Progress(ctx context.Context, label string, completed, total int64) error {
	progress := &pb.ProgressReported{Label: label}
	if completed >= 0 {
		progress.Completed = &completed
	}
	if total >= 0 {
		progress.Total = &total
	}
	return s.Publish(ctx, &Event{Payload: &pb.Event_ProgressReported{ProgressReported: progress}})
}

// ReportError reports an error that does not end the run.
func (s scope) ReportError(ctx context.Context, err error) error {
	reported := &pb.ErrorReported{Error: describe(err)}
	return s.Publish(ctx, &Event{Payload: &pb.Event_ErrorReported{ErrorReported: reported}})
}

// State publishes a whole state, from which readers continue. The name distinguishes several states.
func (s scope) State(ctx context.Context, name string, value any) error {
	text, err := encodeJSON("the state", value)
	if err != nil {
		return err
	}
	snapshot := &pb.StateSnapshot{Name: name, ValueJson: text}
	return s.Publish(ctx, &Event{Payload: &pb.Event_StateSnapshot{StateSnapshot: snapshot}})
}

// Custom publishes an event of your own, under a dotted name such as "weather.measured".
func (s scope) Custom(ctx context.Context, name string, value any) error {
	text, err := encodeJSON("the value of "+name, value)
	if err != nil {
		return err
	}
	custom := &pb.CustomEvent{Name: name, ValueJson: text}
	return s.Publish(ctx, &Event{Payload: &pb.Event_Custom{Custom: custom}})
}

// Artifact publishes a file by its content or its URI. Without an ID a new one is set; with that of an earlier artifact,
// its content is replaced or extended.
func (s scope) Artifact(ctx context.Context, artifact *pb.ArtifactUpdated) error {
	if artifact.GetArtifactId() == "" {
		artifact.ArtifactId = newID()
	}
	return s.Publish(ctx, &Event{Payload: &pb.Event_ArtifactUpdated{ArtifactUpdated: artifact}})
}
