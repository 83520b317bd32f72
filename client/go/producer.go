package lavant

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "lavant.dev/go/lavantpb"
)

// StartOptions has the settings of a run that is started.
type StartOptions struct {
	// RunID is the ID of the run. Default: a new one.
	RunID string
	// Settings of the run, other than its name.
	Kind            RunKind
	Labels          map[string]string
	ParentRunID     string
	ConversationID  string
	ProducerTimeout time.Duration
	// Input of the run, which is encoded as JSON; version of the agent; name of the model.
	Input          any
	Version, Model string
	// Producer has the identity and the limits of the producer.
	Producer ProducerOptions
}

// RunProducer publishes one run. Its methods queue events, which a goroutine sends in order and exactly once, over as
// many calls as it takes; they wait only while the outbox is full. They fail when the server has refused an event for
// good: the run cannot be continued then. It is safe for concurrent use.
//
// End it with Finish. Without that, the run stays open, and Client.Close drops what is not durable.
type RunProducer struct {
	scope
	// Output of the run, which is encoded as JSON when it ends.
	Output any
	// Usage of the whole run. Nil: not known.
	Usage *TokenUsage
	// Summary of an evaluation. Nil: none.
	Summary *pb.EvaluationSummary

	publisher *publisher
	began     time.Time
	model     string

	mu      sync.Mutex
	current map[string]*Message // the message per step that its text has started
	ended   bool
}

// Start starts a run of the agent or evaluation with a name, without waiting: the server creates it with its first
// event. It fails for settings that cannot be sent; what the server refuses is an error of later methods.
func (r *Runs) Start(ctx context.Context, name string, options StartOptions) (*RunProducer, error) {
	input, err := encodeJSON("Input", options.Input)
	if err != nil {
		return nil, err
	}
	settings := &RunSettings{
		Kind:           options.Kind,
		Name:           name,
		Labels:         options.Labels,
		ParentRunId:    options.ParentRunID,
		ConversationId: options.ConversationID,
	}
	if options.ProducerTimeout > 0 {
		settings.ProducerTimeout = durationpb.New(options.ProducerTimeout)
	}
	run, err := r.produce(cmp.Or(options.RunID, newID()), settings, options.Producer)
	if err != nil {
		return nil, err
	}
	run.model = options.Model
	started := &pb.RunStarted{InputJson: input, Version: options.Version, Model: options.Model}
	return run, run.Publish(ctx, &Event{Payload: &pb.Event_RunStarted{RunStarted: started}})
}

// Continue publishes to a run that exists, as one that Create has created, or that another process has started. To
// continue as the same producer, use its ID with a higher epoch.
func (r *Runs) Continue(id string, options ProducerOptions) (*RunProducer, error) {
	return r.produce(id, nil, options)
}

func (r *Runs) produce(id string, settings *RunSettings, options ProducerOptions) (*RunProducer, error) {
	publisher, err := newPublisher(r.client, id, settings, options)
	if err != nil {
		return nil, err
	}
	run := &RunProducer{publisher: publisher, began: time.Now(), current: make(map[string]*Message)}
	run.scope = scope{run: run}
	return run, nil
}

// ID returns the ID of the run.
func (r *RunProducer) ID() string { return r.publisher.run }

// Cancelled is closed when somebody asks the run to stop: stop the work, and call Finish with a CancelledError.
func (r *RunProducer) Cancelled() <-chan struct{} { return r.publisher.asked.Done() }

// CancelReason returns the reason of that request, for people; it may be empty.
func (r *RunProducer) CancelReason() string {
	var cancelled *CancelledError
	if errors.As(context.Cause(r.publisher.asked), &cancelled) {
		return cancelled.Message
	}
	return ""
}

// Context returns a context for the work of the run. When somebody asks the run to stop, it is cancelled with a
// CancelledError as its cause. Call the function when the work is done.
//
//	ctx, stop := run.Context(ctx)
//	defer stop()
//	err := work(ctx)
//	if err != nil {
//		err = context.Cause(ctx)
//	}
//	_, err = run.Finish(context.WithoutCancel(ctx), err)
func (r *RunProducer) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(r.publisher.asked, func() { cancel(context.Cause(r.publisher.asked)) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

// Flush waits until all events that were queued before are durable, and returns the receipt of the last batch.
func (r *RunProducer) Flush(ctx context.Context) (*BatchReceipt, error) {
	return r.publisher.flush(ctx)
}

// End queues the end of the run, without waiting: SUCCEEDED without a cause, CANCELLED for a context.Canceled, such as
// a CancelledError, and otherwise FAILED. Messages that were started by their text are finished. Only the first call has
// an effect. Call Finish to wait until the end is durable.
func (r *RunProducer) End(cause error) error {
	r.mu.Lock()
	ended := r.ended
	r.ended = true
	current := r.current
	r.current = make(map[string]*Message)
	r.mu.Unlock()
	if ended {
		return nil
	}
	for _, message := range current {
		if err := message.End(); err != nil {
			return err
		}
	}
	output, err := encodeJSON("Output", r.Output)
	if err != nil && cause == nil {
		cause = err
	}
	finished := &RunFinished{
		State:      stateOf(cause),
		OutputJson: output,
		Error:      describe(cause),
		Usage:      r.Usage,
		Duration:   durationpb.New(time.Since(r.began)),
		Evaluation: r.Summary,
	}
	event := &Event{Payload: &pb.Event_RunFinished{RunFinished: finished}}
	return errors.Join(err, r.publisher.publish(context.Background(), event, true, true))
}

// Finish ends the run as End does, and waits until all of it is durable. If the context ends before, the events are
// still sent as long as the client is open.
func (r *RunProducer) Finish(ctx context.Context, cause error) (*BatchReceipt, error) {
	if err := r.End(cause); err != nil {
		return nil, err
	}
	return r.publisher.finish(ctx)
}

// Abandon drops what is not durable and stops to publish, without an end of the run.
func (r *RunProducer) Abandon() { r.publisher.close() }

// encodeJSON returns a value as JSON text: empty for nil, and a json.RawMessage as it is.
func encodeJSON(name string, value any) (string, error) {
	if value == nil {
		return "", nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("lavant: %s cannot be encoded: %w", name, err)
	}
	return string(text), nil
}

func stateOf(cause error) RunState {
	switch {
	case cause == nil:
		return pb.RunState_RUN_STATE_SUCCEEDED
	case errors.Is(cause, context.Canceled):
		return pb.RunState_RUN_STATE_CANCELLED
	}
	return pb.RunState_RUN_STATE_FAILED
}

// describe returns the description of what ended work; nil for nil.
func describe(cause error) *pb.Error {
	if cause == nil {
		return nil
	}
	message := cause.Error()
	var cancelled *CancelledError
	if errors.As(cause, &cancelled) {
		message = cmp.Or(cancelled.Message, "cancelled")
	}
	return &pb.Error{Message: shorten(message, maxErrorMessage), Type: fmt.Sprintf("%T", cause)}
}
