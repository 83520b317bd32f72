package lavant

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "lavant.dev/go/lavantpb"
)

// longText is the size in bytes of the text of one event, and of a message: what exceeds it continues in another one.
const longText = 200_000

// StepOptions has the settings of a step.
type StepOptions struct {
	// Kind of work. Default StepWorkflow.
	Kind StepKind
	// Input of the step, which is encoded as JSON.
	Input any
	// ID of the step. Default: a new one. With the ID of an earlier step and the next Attempt, the step replaces that one:
	// readers drop what the earlier attempt published.
	ID      string
	Attempt int32
}

// Step is a unit of work within a run: what is published with it belongs to it. End it with End.
type Step struct {
	scope
	// Output of the step, which is encoded as JSON when it ends.
	Output any
	// Usage of this step alone. Nil: not known.
	Usage *TokenUsage

	around scope
	began  time.Time
	once   sync.Once
}

func startStep(ctx context.Context, around scope, name string, options StepOptions) (*Step, error) {
	input, err := encodeJSON("Input", options.Input)
	if err != nil {
		return nil, err
	}
	id := cmp.Or(options.ID, newID())
	started := &pb.StepStarted{
		StepId:       id,
		ParentStepId: around.step,
		Name:         name,
		Kind:         cmp.Or(options.Kind, StepWorkflow),
		InputJson:    input,
		Attempt:      cmp.Or(options.Attempt, 1),
	}
	step := &Step{scope: scope{around.run, id}, around: around, began: time.Now()}
	return step, around.Publish(ctx, &Event{Payload: &pb.Event_StepStarted{StepStarted: started}})
}

// ID returns the ID of the step.
func (s *Step) ID() string { return s.step }

// End ends the step: SUCCEEDED without a cause, CANCELLED for a context.Canceled, and otherwise FAILED. Only the first
// call has an effect.
func (s *Step) End(cause error) (err error) {
	s.once.Do(func() {
		if err = s.EndMessage(); err != nil {
			return
		}
		var output string
		if output, err = encodeJSON("Output", s.Output); err != nil && cause == nil {
			cause = err
		}
		finished := &pb.StepFinished{
			StepId:     s.step,
			State:      stateOf(cause),
			OutputJson: output,
			Error:      describe(cause),
			Duration:   durationpb.New(time.Since(s.began)),
			Usage:      s.Usage,
		}
		err = cmp.Or(err, s.around.close(&Event{Payload: &pb.Event_StepFinished{StepFinished: finished}}))
	})
	return err
}

// ToolCall is a call of a tool. End it with End.
type ToolCall struct {
	// Result of the tool, which is encoded as JSON when the call ends.
	Result any
	// Outcome of a call that neither succeeded nor failed, such as one that was denied. Default: by the cause of its end.
	Outcome pb.ToolCallOutcome

	scope scope
	call  *pb.ToolCall
	began time.Time
	once  sync.Once
}

func startTool(ctx context.Context, scope scope, name string, arguments any, id string) (*ToolCall, error) {
	text, err := encodeJSON("the arguments of "+name, arguments)
	if err != nil {
		return nil, err
	}
	call := &pb.ToolCall{ToolCallId: cmp.Or(id, newID()), ToolName: name, ArgumentsJson: cmp.Or(text, "{}")}
	started := &pb.ToolCallStarted{Call: call}
	tool := &ToolCall{scope: scope, call: call, began: time.Now()}
	return tool, scope.Publish(ctx, &Event{Payload: &pb.Event_ToolCallStarted{ToolCallStarted: started}})
}

// ID returns the ID of the tool call.
func (t *ToolCall) ID() string { return t.call.GetToolCallId() }

// Output publishes output of the tool while it runs.
func (t *ToolCall) Output(ctx context.Context, text string) error {
	for _, piece := range pieces(text) {
		delta := &pb.ToolOutputDelta{ToolCallId: t.ID(), Text: piece}
		if err := t.scope.Publish(ctx, &Event{Payload: &pb.Event_ToolOutputDelta{ToolOutputDelta: delta}}); err != nil {
			return err
		}
	}
	return nil
}

// End ends the call: SUCCEEDED without a cause, otherwise FAILED, unless Outcome is set. Only the first call has an
// effect.
func (t *ToolCall) End(cause error) (err error) {
	t.once.Do(func() {
		var result string
		if result, err = encodeJSON("Result", t.Result); err != nil && cause == nil {
			cause = err
		}
		outcome := t.Outcome
		if outcome == pb.ToolCallOutcome_TOOL_CALL_OUTCOME_UNSPECIFIED {
			outcome = pb.ToolCallOutcome_TOOL_CALL_OUTCOME_SUCCEEDED
			if cause != nil {
				outcome = pb.ToolCallOutcome_TOOL_CALL_OUTCOME_FAILED
			}
		}
		finished := &pb.ToolCallFinished{
			ToolCallId: t.ID(),
			ToolName:   t.call.GetToolName(),
			Outcome:    outcome,
			ResultJson: result,
			Error:      describe(cause),
			Duration:   durationpb.New(time.Since(t.began)),
		}
		err = cmp.Or(err, t.scope.close(&Event{Payload: &pb.Event_ToolCallFinished{ToolCallFinished: finished}}))
	})
	return err
}

// pieces cuts text that is too long for one event, between characters.
func pieces(text string) []string {
	var cut []string
	text = strings.ToValidUTF8(text, "\uFFFD")
	for len(text) > longText {
		piece := shorten(text, longText)
		cut, text = append(cut, piece), text[len(piece):]
	}
	return append(cut, text)
}

// shorten returns the beginning of a text, of at most so many bytes, without a part of a character.
func shorten(text string, size int) string {
	if len(text) > size {
		for size > 0 && !utf8.RuneStart(text[size]) {
			size--
		}
		text = text[:size]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
