package lavant

import (
	"context"
	"errors"
	"io"
	"time"

	pb "lavant.dev/go/lavantpb"
)

// gapsWithoutProgress bounds how often a batch is sent again that the server says is missing.
const gapsWithoutProgress = 5

// send makes one PublishEvents call after the other, until all is durable and nothing follows, or something fails for
// good. It follows docs/protocol.md, "Publishing".
func (p *publisher) send() {
	defer close(p.stopped)
	defer p.client.remove(p)
	defer p.cancel()
	var retry retries
	for calls := 0; ; calls++ {
		if calls == 0 && !p.awaitFirst() {
			return
		}
		retry.begin()
		call := &publishCall{publisher: p, retry: &retry}
		err := call.run(calls > 0)
		if p.isDone() {
			return
		}
		first := retry.settle()
		delay, again := retry.after(err, p.client.credential, isRetried)
		if !again {
			p.fail(err)
			return
		}
		if first {
			p.client.log.Warn("publishing interrupted", "run", p.run, "error", err)
		}
		if sleep(p.ctx, delay) != nil {
			return
		}
	}
}

// awaitFirst waits for the first event. It returns false if there will be none.
func (p *publisher) awaitFirst() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waitLocked(p.ctx, func() bool { return p.last > 0 }) == nil
}

func (p *publisher) isDone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure != nil || p.finishing && p.outbox.isEmpty()
}

// publishCall is one PublishEvents call: what is sent on it by one goroutine, and what is received by another.
type publishCall struct {
	*publisher
	retry  *retries
	dog    *watchdog
	awaits int // answers; guarded by the publisher's lock
}

// run makes the call and returns why it ended. A call that continues others begins with a heartbeat if there is nothing
// to resend, so that the server knows whom to ask to cancel.
func (c *publishCall) run(continues bool) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	authorized, err := c.client.credential.authorize(ctx)
	if err != nil {
		return err
	}
	over, err := c.client.pool.forLong()
	if err != nil {
		return err
	}
	defer c.client.pool.release(over)

	c.mu.Lock()
	c.outbox.rewind()
	c.mu.Unlock()
	c.dog = watch(unanswered, cancel)
	defer c.dog.Stop()
	stream, err := pb.NewEventServiceClient(over).PublishEvents(authorized)
	if err != nil {
		return c.explain(err, over)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.receive(stream) }()
	if c.transmit(stream, ended, continues) {
		_ = stream.CloseSend()
	}
	// All is durable, or receive has ended: what is left of the call is of no use.
	c.dog.Stop()
	if c.isDone() {
		cancel()
	}
	return c.explain(<-ended, over)
}

// explain returns the error of the end of a call.
func (c *publishCall) explain(err error, over *connection) error {
	if c.dog.barked.Load() {
		c.client.pool.retire(over)
		return cut("no answer came in time: the connection is dead")
	}
	if errors.Is(err, io.EOF) {
		return cut("the server ended the call")
	}
	return errorOf(err)
}

// transmit sends what is queued until nothing follows, and returns true; or false when the call has ended.
func (c *publishCall) transmit(stream pb.EventService_PublishEventsClient, ended chan error, continues bool) bool {
	heartbeat := time.NewTimer(c.interval)
	defer heartbeat.Stop()
	beats := continues
	for {
		c.mu.Lock()
		field, changed := c.outbox.nextField(), c.changed
		if field == nil && beats && c.awaits == 0 {
			field = c.outbox.heartbeat()
		}
		if field != nil {
			if c.awaits == 0 {
				c.dog.Reset(c.silence())
			}
			c.awaits++
		} else if c.awaits == 0 {
			c.dog.Stop()
		}
		done := c.failure != nil || c.finishing && c.outbox.isEmpty()
		c.mu.Unlock()
		beats = false
		if done {
			return true
		}
		if field != nil {
			request := &pb.PublishEventsRequest{}
			request.ProtoReflect().SetUnknown(field) // serialized before: unknown fields are sent as they are
			if stream.Send(request) != nil {
				ended <- <-ended // Recv has the reason
				return false
			}
			heartbeat.Reset(c.interval)
			continue
		}
		select {
		case err := <-ended:
			ended <- err
			return false
		case <-changed:
		case <-heartbeat.C:
			beats = true
			heartbeat.Reset(c.interval)
		}
	}
}

// silence returns how long an answer may not come: not so long for the first one.
func (c *publishCall) silence() time.Duration {
	silence := missedHeartbeats * max(c.interval, shortestHeartbeat)
	if c.outbox.receipt == nil {
		return min(silence, unanswered)
	}
	return silence
}

// receive handles the server's responses, and returns why the call ended.
func (c *publishCall) receive(stream pb.EventService_PublishEventsClient) error {
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, answer := range response.GetAnswers() {
			if err := c.handle(answer); err != nil {
				return err
			}
		}
		for _, request := range response.GetCancelRequests() {
			c.ask(&CancelledError{Message: request.GetReason()})
		}
	}
}

// handle takes the answer to a batch. An error ends the call: whether it is retried is decided as for a call.
func (c *publishCall) handle(answer *pb.BatchAnswer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awaits = max(0, c.awaits-1)
	if c.awaits > 0 {
		c.dog.Reset(c.silence())
	} else {
		c.dog.Stop()
	}
	if rejection := answer.GetRejection(); rejection != nil {
		return c.rejected(fromProto(rejection))
	}
	receipt := answer.GetReceipt()
	if c.retry.openTime.IsZero() {
		c.retry.open()
	}
	if c.outbox.acknowledge(receipt) {
		c.retry.progress()
		c.gaps = 0
	}
	c.changeLocked()
	return nil
}

// rejected returns the error of a rejection that matters: what follows another rejection does not.
func (c *publishCall) rejected(refusal *Error) error {
	if refusal.Reason != ErrProducerGap {
		return refusal
	}
	for _, detail := range refusal.Details() {
		gap, ok := detail.(*pb.ProducerGap)
		if !ok {
			continue
		}
		if gap.GetFollowsRejection() {
			return nil
		}
		c.gaps++
		if c.outbox.holds(gap.GetExpectedProducerSequence()) && c.gaps <= gapsWithoutProgress {
			return cut("%s", refusal.Message)
		}
	}
	return refusal
}
