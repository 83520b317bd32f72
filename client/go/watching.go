package lavant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	pb "lavant.dev/go/lavantpb"
)

// watchSilence is three heartbeats of the server.
const watchSilence = 45 * time.Second

// ChangeType is what a RunChange says.
type ChangeType int

// Types of changes.
const (
	// RunChanged: Run matches, and was created or has changed its state.
	RunChanged ChangeType = iota + 1
	// RunLeft: the run RunID has changed its state, and does not match any more.
	RunLeft
	// RunDeleted: the run RunID was deleted. It may be one that never matched.
	RunDeleted
	// WatchCaughtUp: all runs that match were returned. Once per watch.
	WatchCaughtUp
	// WatchReset: the position is older than what the server keeps. Forget all runs: those that match follow.
	WatchReset
)

// RunChange is one step of a watch.
type RunChange struct {
	Type  ChangeType
	Run   *Run   // of RunChanged
	RunID string // of RunChanged, RunLeft and RunDeleted
	// ResumeToken is the position to pass to a later Watch once this change is handled, valid for 24 hours. Changes that
	// came together share the position before them, until the last one.
	ResumeToken string
}

// Watch returns the runs that match, and then each change to them. A nil filter matches all. It continues after cuts
// and ends with an error as its last step: that of the context, or one that a reconnect cannot solve. With a resume
// token it starts with the changes after it.
//
// It returns current states: of a run that changes several times while the caller is busy, some are left out.
func (r *Runs) Watch(ctx context.Context, filter *RunFilter, resumeToken string) iter.Seq2[RunChange, error] {
	return func(yield func(RunChange, error) bool) {
		w := &watching{client: r.client, filter: filter, token: resumeToken}
		err := w.read(ctx, func(change RunChange) bool { return yield(change, nil) })
		if !errors.Is(err, errLeft) {
			yield(RunChange{}, err)
		}
	}
}

// watching is one watch, over all of its calls.
type watching struct {
	client *Client
	filter *RunFilter
	token  string
	caught bool
	retry  retries
}

func (w *watching) read(ctx context.Context, yield func(RunChange) bool) error {
	for {
		w.retry.begin()
		delay, err := w.call(ctx, yield)
		switch {
		case errors.Is(err, errLeft):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("lavant: watching runs: %w", context.Cause(ctx))
		case w.token != "" && errors.Is(err, ErrInvalidField):
			w.token = "" // it is too old; an invalid filter fails again without it
			if !yield(RunChange{Type: WatchReset}) {
				return errLeft
			}
		case err != nil:
			first := w.retry.settle()
			var again bool
			if delay, again = w.retry.after(err, w.client.credential, isRetried); !again {
				return err
			}
			if first {
				w.client.log.Warn("watch cut", "error", err)
			}
		default:
			w.retry.settle()
			delay = w.retry.delays.next(delay)
		}
		if sleep(ctx, delay) != nil {
			return fmt.Errorf("lavant: watching runs: %w", context.Cause(ctx))
		}
	}
}

// call makes one call. Without an error it ended as planned, and the next one is made after the delay.
func (w *watching) call(parent context.Context, yield func(RunChange) bool) (delay time.Duration, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	if ctx, err = w.client.credential.authorize(ctx); err != nil {
		return 0, err
	}
	over, err := w.client.pool.forLong()
	if err != nil {
		return 0, err
	}
	defer w.client.pool.release(over)

	dog := watch(watchSilence, cancel)
	defer dog.Stop()
	request := &pb.WatchRunsRequest{Filter: w.filter, ResumeToken: w.token}
	frames, err := pb.NewRunServiceClient(over).WatchRuns(ctx, request)
	for err == nil {
		var frame *pb.WatchRunsResponse
		if frame, err = frames.Recv(); err != nil {
			break
		}
		dog.Stop()
		if w.retry.openTime.IsZero() {
			w.retry.open()
		}
		if err := w.apply(frame, yield); err != nil {
			return 0, err
		}
		if end := frame.GetEnd(); end != nil {
			return end.GetRetryDelay().AsDuration(), nil
		}
		dog.Reset(watchSilence)
	}
	switch {
	case dog.barked.Load():
		w.client.pool.retire(over)
		return 0, cut("nothing came for %s: the connection is dead", watchSilence)
	case errors.Is(err, io.EOF):
		return 0, cut("the watch ended without its last frame")
	}
	return 0, errorOf(err)
}

// apply returns the changes of a frame, in the order in which they are to be applied.
func (w *watching) apply(frame *pb.WatchRunsResponse, yield func(RunChange) bool) error {
	var changes []RunChange
	for _, id := range frame.GetDeletedRunIds() {
		changes = append(changes, RunChange{Type: RunDeleted, RunID: id})
	}
	for _, id := range frame.GetLeftRunIds() {
		changes = append(changes, RunChange{Type: RunLeft, RunID: id})
	}
	for _, run := range frame.GetRuns() {
		changes = append(changes, RunChange{Type: RunChanged, RunID: run.GetRunId(), Run: run})
	}
	if frame.GetCaughtUp() && !w.caught { // each call catches up
		w.caught = true
		changes = append(changes, RunChange{Type: WatchCaughtUp})
	}
	before := w.token
	if len(changes) > 0 && before != frame.GetResumeToken() {
		w.retry.progress()
	}
	w.token = frame.GetResumeToken()
	for i, change := range changes {
		change.ResumeToken = before
		if i == len(changes)-1 {
			change.ResumeToken = w.token
		}
		if !yield(change) {
			return errLeft
		}
	}
	return nil
}
