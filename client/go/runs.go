package lavant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "lavant.dev/go/lavantpb"
)

// longestWait is less than the contract allows, so that proxies with limits of a minute do not cut a call.
const longestWait = 50 * time.Second

// Runs has the calls about runs, at Client.Runs. While the server cannot be reached, calls are repeated within
// Config.Timeout: repeating them has no second effect.
type Runs struct{ client *Client }

// Create creates a run in state QUEUED. With an empty id, a new one is chosen. A run with the same settings is returned
// as it is. A producer need not call this: Start creates the run with its first event.
func (r *Runs) Create(ctx context.Context, id string, settings *RunSettings) (*Run, error) {
	request := &pb.CreateRunRequest{RunId: cmp.Or(id, newID()), Settings: settings}
	response, err := call(ctx, r.client, pb.NewRunServiceClient, pb.RunServiceClient.CreateRun, request)
	return response.GetRun(), err
}

// Get returns a run.
func (r *Runs) Get(ctx context.Context, id string) (*Run, error) {
	request := &pb.GetRunRequest{RunId: id}
	response, err := call(ctx, r.client, pb.NewRunServiceClient, pb.RunServiceClient.GetRun, request)
	return response.GetRun(), err
}

// List returns the runs that match, the newest first, page by page as they are used. A nil filter matches all.
func (r *Runs) List(ctx context.Context, filter *RunFilter) iter.Seq2[*Run, error] {
	return r.ListPages(ctx, &pb.ListRunsRequest{Filter: filter})
}

// ListPages is List with all settings of the request, such as the size of the pages.
func (r *Runs) ListPages(ctx context.Context, request *pb.ListRunsRequest) iter.Seq2[*Run, error] {
	return pages(request.GetPageToken(), func(token string) ([]*Run, string, error) {
		page := proto.CloneOf(request)
		page.PageToken = token
		response, err := call(ctx, r.client, pb.NewRunServiceClient, pb.RunServiceClient.ListRuns, page)
		return response.GetRuns(), response.GetNextPageToken(), err
	})
}

// Wait waits until a run has ended, as long as the context allows, and returns the run.
func (r *Runs) Wait(ctx context.Context, id string) (*Run, error) {
	var early delays
	for {
		began := time.Now()
		run, err := repeat(ctx, r.client, longestWait+r.client.timeout, func(own context.Context) (*Run, error) {
			wait := longestWait
			if deadline, ok := ctx.Deadline(); ok {
				wait = max(0, min(wait, time.Until(deadline)))
			}
			over, err := r.client.pool.forLong()
			if err != nil {
				return nil, err
			}
			request := &pb.WaitRunRequest{RunId: id, Timeout: durationpb.New(wait)}
			response, err := attempt(own, r.client, over, wait+unanswered, pb.NewRunServiceClient, pb.RunServiceClient.WaitRun, request)
			return response.GetRun(), err
		})
		switch {
		case ctx.Err() != nil && !HasEnded(run):
			return run, fmt.Errorf("lavant: run %s has not ended: %w", id, context.Cause(ctx))
		case err != nil || HasEnded(run):
			return run, err
		case time.Since(began) >= steady:
			early = delays{}
		default: // a server that drains answers at once
			_ = sleep(ctx, early.next(0))
		}
	}
}

// Cancel asks the run's producer to stop, and returns the run, which usually has not ended yet.
func (r *Runs) Cancel(ctx context.Context, id, reason string) (*Run, error) {
	request := &pb.CancelRunRequest{RunId: id, Reason: reason}
	response, err := call(ctx, r.client, pb.NewRunServiceClient, pb.RunServiceClient.CancelRun, request)
	return response.GetRun(), err
}

// Delete deletes an ended run and its log. A call that is repeated after a cut may find the run already deleted.
func (r *Runs) Delete(ctx context.Context, id string) error {
	_, err := call(ctx, r.client, pb.NewRunServiceClient, pb.RunServiceClient.DeleteRun, &pb.DeleteRunRequest{RunId: id})
	return err
}

// Events returns the events that are recorded so far, page by page as they are used, without a lease.
func (r *Runs) Events(ctx context.Context, id string, types ...EventType) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		for page, err := range r.EventPages(ctx, &pb.ListEventsRequest{RunId: id, Types: types}) {
			for _, event := range page.GetEvents() {
				if !yield(event, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, err)
			}
		}
	}
}

// EventPages is Events with all settings of the request, and with the resume token of each page, after which a stream or
// a later request continues.
func (r *Runs) EventPages(ctx context.Context, request *pb.ListEventsRequest) iter.Seq2[*pb.ListEventsResponse, error] {
	return pages(request.GetPageToken(), func(token string) ([]*pb.ListEventsResponse, string, error) {
		page := proto.CloneOf(request)
		page.PageToken = token
		response, err := call(ctx, r.client, pb.NewEventServiceClient, pb.EventServiceClient.ListEvents, page)
		return []*pb.ListEventsResponse{response}, response.GetNextPageToken(), err
	})
}

// Stream returns a stream of a run's events, which is opened when it is read.
func (r *Runs) Stream(id string, options ReadOptions) *Stream {
	return newStream(r.client, id, options)
}

// Read returns the events of a run and waits for those to come: it is Stream(id, options).Events(ctx).
//
//	for event, err := range client.Runs.Read(ctx, run, lavant.ReadOptions{}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(event)
//	}
func (r *Runs) Read(ctx context.Context, id string, options ReadOptions) iter.Seq2[*Event, error] {
	return r.Stream(id, options).Events(ctx)
}

// pages returns the items of a list, from the first page to the last, and an error as the last step.
func pages[Item any](token string, get func(token string) ([]Item, string, error)) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for {
			items, next, err := get(token)
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if next == token { // no sound server does that, and the list would never end
				var none Item
				yield(none, errors.New("lavant: the server returned the same page twice"))
				return
			}
			token = next
		}
	}
}

// newID returns an ID that sorts by time.
func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		return uuid.NewString()
	}
	return id.String()
}
