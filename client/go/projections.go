package lavant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	pb "lavant.dev/go/lavantpb"
)

// Result reads to the end of the run and returns how it ended. A run that did not succeed is a RunNotSucceededError,
// which has the result too; a stream that ends before the run fails with RUN_NOT_ENDED.
func (s *Stream) Result(ctx context.Context) (*RunFinished, error) {
	return s.follow(ctx, func(*Event) {})
}

// Output reads to the end of the run and decodes its output as JSON into a value, as json.Unmarshal does.
func (s *Stream) Output(ctx context.Context, value any) error {
	result, err := s.Result(ctx)
	if err != nil {
		return err
	}
	if result.GetOutputJson() == "" {
		return fmt.Errorf("lavant: run %s has no output", s.request.GetRunId())
	}
	return json.Unmarshal([]byte(result.GetOutputJson()), value)
}

// Text reads to the end of the run and returns the text of its own agent, without that of nested ones. It fails as
// Result does.
func (s *Stream) Text(ctx context.Context) (string, error) {
	var text TextProjection
	_, err := s.follow(ctx, func(event *Event) { text.Add(event) })
	return text.Text(), err
}

// TextChunks returns the text of the run's own agent, piece by piece as it comes.
func (s *Stream) TextChunks(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var text TextProjection
		for event, err := range s.Events(ctx) {
			if chunk := text.Add(event); chunk != "" || err != nil {
				if !yield(chunk, err) {
					return
				}
			}
		}
	}
}

// FinishedToolCall is a tool call from its start to its end.
type FinishedToolCall struct {
	// StepID is the step that the call belongs to; empty: the run itself.
	StepID string
	// Call has the name and the arguments. It has no arguments if the start was not read.
	Call *pb.ToolCall
	// Result has the outcome.
	Result *pb.ToolCallFinished
}

// ToolCalls returns each tool call of the run when it has ended.
func (s *Stream) ToolCalls(ctx context.Context) iter.Seq2[FinishedToolCall, error] {
	return func(yield func(FinishedToolCall, error) bool) {
		open := make(map[string]*pb.ToolCall)
		for event, err := range s.Events(ctx) {
			if err != nil {
				yield(FinishedToolCall{}, err)
				return
			}
			if started := event.GetToolCallStarted(); started != nil {
				open[started.GetCall().GetToolCallId()] = started.GetCall()
			}
			finished := event.GetToolCallFinished()
			if finished == nil {
				continue
			}
			call := open[finished.GetToolCallId()]
			if call == nil {
				call = &pb.ToolCall{ToolCallId: finished.GetToolCallId(), ToolName: finished.GetToolName()}
			}
			delete(open, finished.GetToolCallId())
			if !yield(FinishedToolCall{event.GetStepId(), call, finished}, nil) {
				return
			}
		}
	}
}

// follow reads to the end of the run, and returns how it ended.
func (s *Stream) follow(ctx context.Context, add func(*Event)) (*RunFinished, error) {
	var result *RunFinished
	for event, err := range s.Events(ctx) {
		if err != nil {
			return nil, err
		}
		add(event)
		if finished := event.GetRunFinished(); finished != nil {
			result = finished
		}
	}
	id := s.request.GetRunId()
	if result == nil { // filtered out, or returned by an earlier loop
		run, err := s.client.Runs.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		if result = run.GetResult(); result == nil {
			return nil, errors.Join(ErrRunNotEnded, fmt.Errorf("lavant: run %s has not ended", id))
		}
	}
	if result.GetState() != pb.RunState_RUN_STATE_SUCCEEDED {
		return result, &RunNotSucceededError{RunID: id, Result: result}
	}
	return result, nil
}
