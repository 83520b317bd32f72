package lavant

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "lavant.dev/go/lavantpb"
)

const (
	longestHeartbeat  = 15 * time.Second
	shortestHeartbeat = time.Second
	queueBytes        = 8 << 20
)

// ProducerOptions has the identity and the limits of a producer.
type ProducerOptions struct {
	// ID of the producer. Default: a new one. A process that continues a run of another one uses its ID with a higher
	// Epoch, which fences the other one off.
	ID string
	// Epoch is the incarnation of the producer. Default 1.
	Epoch int64
	// QueueBytes is the size of the outbox; beyond it, methods wait. Default 8 MiB.
	QueueBytes int
	// Clock returns the time of events. Default: time.Now.
	Clock func() time.Time
}

// publisher queues the events of one run, and has a goroutine that sends them until they are durable.
type publisher struct {
	client   *Client
	run      string
	producer string
	epoch    int64
	limit    int
	clock    func() time.Time
	interval time.Duration // of heartbeats
	ctx      context.Context
	cancel   context.CancelFunc
	stopped  chan struct{}   // closed when the goroutine has ended
	asked    context.Context // cancelled with a CancelledError when the server asks to stop
	ask      context.CancelCauseFunc

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced when anything below changes
	outbox    *outbox
	events    int64 // how many were made, for their IDs
	last      int64 // number of the last queued event
	finishing bool  // nothing follows what is queued
	failure   error
	gaps      int // rejections with PRODUCER_GAP since the last progress
}

// newPublisher returns a publisher, and starts to send what is queued. Without settings the run exists.
func newPublisher(client *Client, run string, settings *RunSettings, options ProducerOptions) (*publisher, error) {
	address := &pb.ProducerBatch{
		RunId:         run,
		ProducerId:    cmp.Or(options.ID, uuid.NewString()),
		ProducerEpoch: cmp.Or(options.Epoch, 1),
		Create:        settings,
	}
	if _, err := proto.Marshal(address); err != nil {
		return nil, fmt.Errorf("lavant: the run cannot be published: %w", err)
	}
	interval := longestHeartbeat
	if timeout := settings.GetProducerTimeout().AsDuration(); timeout > 0 {
		interval = min(interval, timeout/missedHeartbeats)
	}
	p := &publisher{
		client:   client,
		run:      run,
		producer: address.GetProducerId(),
		epoch:    address.GetProducerEpoch(),
		limit:    cmp.Or(options.QueueBytes, queueBytes),
		clock:    options.Clock,
		interval: interval,
		stopped:  make(chan struct{}),
		changed:  make(chan struct{}),
		outbox:   newOutbox(address),
	}
	if p.clock == nil {
		p.clock = time.Now
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.asked, p.ask = context.WithCancelCause(context.Background())
	if err := client.add(p); err != nil {
		return nil, err
	}
	go p.send()
	return p, nil
}

// publish queues an event, and waits while the outbox is full. A closing event ends something that has begun, and never
// waits. The last event is the run's end.
func (p *publisher) publish(ctx context.Context, event *Event, closing, last bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.waitLocked(ctx, func() bool { return closing || p.outbox.bytes < p.limit }); err != nil {
		return err
	}
	if p.finishing {
		return fmt.Errorf("lavant: run %s: the producer has finished", p.run)
	}
	p.events++
	if event.GetEventId() == "" {
		event.EventId = fmt.Sprintf("%s.%d.%d", p.producer, p.epoch, p.events)
	}
	if event.GetEventTime() == nil {
		event.EventTime = timestamppb.New(p.clock())
	}
	field, err := encode(event)
	if err != nil {
		return err
	}
	p.last = p.outbox.put(field)
	p.finishing = last
	p.changeLocked()
	return nil
}

// flush waits until all events that are queued now are durable, and returns the receipt of the last batch.
func (p *publisher) flush(ctx context.Context) (*BatchReceipt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.last
	err := p.waitLocked(ctx, func() bool { return p.outbox.durable >= last })
	return p.outbox.receipt, err
}

// finish waits until all is durable and nothing is sent any more.
func (p *publisher) finish(ctx context.Context) (*BatchReceipt, error) {
	receipt, err := p.flush(ctx)
	if err == nil {
		<-p.stopped // at once: nothing is left to send
	}
	return receipt, err
}

// close drops what is not durable, and waits until nothing is sent any more.
func (p *publisher) close() {
	p.fail(ErrClosed)
	p.cancel()
	<-p.stopped
}

// fail refuses all events from now on, and drops those that are not durable.
func (p *publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil || p.finishing && p.outbox.isEmpty() {
		return
	}
	p.failure = err
	if lost := p.outbox.drop(); lost > 0 {
		p.client.log.Warn("events lost", "run", p.run, "events", lost, "error", err)
	}
	p.changeLocked()
}

func (p *publisher) changeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// waitLocked waits for a condition, with the lock held whenever it is asked. It fails with the failure or the context.
func (p *publisher) waitLocked(ctx context.Context, condition func() bool) error {
	for {
		if p.failure != nil {
			return p.failure
		}
		if condition() {
			return nil
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if err := ctx.Err(); err != nil && p.failure == nil && !condition() {
			return fmt.Errorf("lavant: publishing run %s: %w", p.run, context.Cause(ctx))
		}
	}
}
