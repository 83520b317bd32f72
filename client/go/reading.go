package lavant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	pb "lavant.dev/go/lavantpb"
)

const (
	missedHeartbeats = 3
	statusTimeout    = time.Second
)

var (
	errLeft       = errors.New("the loop was left")
	errConcurrent = errors.New("lavant: the stream is being read already: use one stream per reader")
)

// Events returns the events after the stream's position, each once, and waits for those to come. The loop ends when
// the stream is complete, or with an error as its last step: that of the context, or one that a reconnect cannot solve.
// Cut connections are restored as long as the context allows.
//
// After a loop was left, another one continues with the next event.
func (s *Stream) Events(ctx context.Context) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		if !s.reading.CompareAndSwap(false, true) {
			yield(nil, errConcurrent)
			return
		}
		defer s.reading.Store(false)
		err := s.read(ctx, func(event *Event) bool { return yield(event, nil) })
		if err != nil && !errors.Is(err, errLeft) {
			yield(nil, err)
		}
	}
}

// read makes one call after the other, until the stream is complete. It follows docs/protocol.md, "Reading a stream".
func (s *Stream) read(ctx context.Context, yield func(*Event) bool) error {
	var retry retries
	for {
		if err := s.deliver(yield); err != nil {
			return err
		}
		if s.isComplete() {
			return nil
		}
		retry.begin()
		delay, err := s.call(ctx, &retry, yield)
		switch {
		case errors.Is(err, errLeft):
			return err
		case err == nil && s.isComplete():
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("lavant: reading run %s: %w", s.request.GetRunId(), context.Cause(ctx))
		case err != nil:
			first := retry.settle()
			var again bool
			if delay, again = retry.after(err, s.client.credential, isCut); !again {
				return err
			}
			if first {
				s.client.log.Warn("stream cut", "run", s.request.GetRunId(), "error", err)
			}
		default:
			delay = retry.planned(delay)
		}
		if err := sleep(ctx, delay); err != nil {
			return fmt.Errorf("lavant: reading run %s: %w", s.request.GetRunId(), context.Cause(ctx))
		}
	}
}

// call makes one call and returns its events. Without an error, the call ended as planned: the delay is how long to
// wait before the next one.
func (s *Stream) call(parent context.Context, retry *retries, yield func(*Event) bool) (delay time.Duration, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	if ctx, err = s.client.credential.authorize(ctx); err != nil {
		return 0, err
	}
	over, err := s.client.pool.forLong()
	if err != nil {
		return 0, err
	}
	defer s.client.pool.release(over)

	request := s.nextRequest()
	defer s.session.leave()
	silence := missedHeartbeats * request.GetHeartbeatInterval().AsDuration()
	dog := watch(silence, cancel)
	defer dog.Stop()
	frames, err := pb.NewEventServiceClient(over).StreamEvents(ctx, request)
	for err == nil {
		var frame *pb.StreamEventsResponse
		if frame, err = frames.Recv(); err != nil {
			break
		}
		dog.Stop() // however long the application handles the events
		if opened := frame.GetOpened(); opened != nil {
			s.session.open()
			retry.open()
			if interval := opened.GetHeartbeatInterval().AsDuration(); interval > 0 {
				silence = missedHeartbeats * interval
			}
		}
		if s.accept(frame) {
			retry.progress()
		}
		if err := s.deliver(yield); err != nil {
			return 0, err
		}
		if frame.GetEnd() != nil {
			dog.Reset(statusTimeout)
			_, _ = frames.Recv() // the status, which is OK: a call that is cancelled before it looks to the server like a cut
			return frame.GetEnd().GetRetryDelay().AsDuration(), nil
		}
		dog.Reset(silence)
	}
	switch {
	case dog.barked.Load():
		s.client.pool.retire(over)
		return 0, cut("nothing came for %s: the connection is dead", silence)
	case errors.Is(err, io.EOF):
		return 0, cut("the stream ended without its last frame")
	}
	return 0, errorOf(err)
}

func (s *Stream) nextRequest() *pb.StreamEventsRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	request := proto.CloneOf(s.request)
	attempt, opened := s.session.next()
	request.SessionId, request.Attempt = s.session.id, attempt
	request.TakeOver = request.GetTakeOver() && !opened
	if s.after.token != "" {
		request.StartFrom = &pb.StreamEventsRequest_ResumeToken{ResumeToken: s.after.token}
	}
	return request
}

// accept takes a frame, all of whose predecessors' events were returned. It reports whether the frame has something new.
func (s *Stream) accept(frame *pb.StreamEventsResponse) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if opened := frame.GetOpened(); opened != nil {
		s.opened = opened
		if token := opened.GetStartToken(); token != "" {
			s.after.token = token
		}
	}
	s.before = s.after
	s.after.token = frame.GetResumeToken()
	events := frame.GetEvents().GetEvents()
	if len(events) > 0 {
		s.after.covers = events[len(events)-1].GetSequence()
	}
	for len(events) > 0 && events[0].GetSequence() <= s.last {
		events = events[1:]
	}
	s.rest = events
	isNew := len(events) > 0 || !s.caught && frame.GetCaughtUp() != nil
	s.caught = s.caught || frame.GetCaughtUp() != nil
	s.end = frame.GetEnd()
	return isNew
}

// deliver returns the events of the last frame that are left. An event is out of the frame before it is yielded: a loop
// that is left has seen it.
func (s *Stream) deliver(yield func(*Event) bool) error {
	for {
		s.mu.Lock()
		if len(s.rest) == 0 {
			s.mu.Unlock()
			return nil
		}
		event := s.rest[0]
		s.rest, s.last = s.rest[1:], event.GetSequence()
		s.mu.Unlock()
		if !yield(event) {
			return errLeft
		}
	}
}

func (s *Stream) isComplete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end != nil && !s.end.GetReconnect()
}
