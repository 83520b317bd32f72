package lavant

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "lavant.dev/go/lavantpb"
)

const (
	maxBatchEvents = 1_000
	maxEventBytes  = 1 << 20
	maxBatchBytes  = maxEventBytes - 64<<10 // less what a batch's own fields may take
	fullEvents     = 250
	fullBytes      = 128 << 10
	maxInFlight    = 4
)

// Fields of PublishEventsRequest and ProducerBatch.
const (
	requestBatches protowire.Number = 1
	batchEvents    protowire.Number = 5
)

// outbox numbers events, forms batches of them, and keeps each batch until a receipt covers it. It makes no calls and
// has no lock: its publisher has.
//
// Events are serialized when they are put in, and batches when they are cut: a batch is resent byte for byte, which
// protobuf does not promise of a message that is serialized again.
type outbox struct {
	address *pb.ProducerBatch // without events; `create` until the first receipt
	queued  [][]byte          // events as fields of a batch
	kept    []batch           // without a receipt
	sent    int               // how many of them were sent on the present call
	next    int64             // number of the first queued event
	bytes   int               // of what is queued or kept
	receipt *pb.BatchReceipt  // of the last batch that was stored
	durable int64             // number of the last durable event
}

// batch is one batch as a field of a request.
type batch struct {
	field       []byte
	bytes       int // of its events
	first, last int64
}

func newOutbox(address *pb.ProducerBatch) *outbox { return &outbox{address: address, next: 1} }

// encode serializes an event as a field of a batch. It fails for text that is not UTF-8, and for an event that no batch
// can hold.
func encode(event *Event) ([]byte, error) {
	size := proto.Size(event)
	if size > maxEventBytes {
		return nil, fmt.Errorf("lavant: an event has %d bytes, and at most %d can be published", size, maxEventBytes)
	}
	field := make([]byte, 0, size+protowire.SizeTag(batchEvents)+protowire.SizeVarint(uint64(size)))
	field = protowire.AppendTag(field, batchEvents, protowire.BytesType)
	field = protowire.AppendVarint(field, uint64(size))
	field, err := proto.MarshalOptions{}.MarshalAppend(field, event)
	if err != nil {
		return nil, fmt.Errorf("lavant: the event cannot be published: %w", err)
	}
	return field, nil
}

// put queues an event that was encoded, and returns its number.
func (o *outbox) put(event []byte) int64 {
	o.queued = append(o.queued, event)
	o.bytes += len(event)
	return o.next + int64(len(o.queued)) - 1
}

// isEmpty reports whether all events are durable.
func (o *outbox) isEmpty() bool { return len(o.queued) == 0 && len(o.kept) == 0 }

// nextField returns the batch to send now, as a field of a request: first those of a call that was cut, then new ones.
// With nothing in flight all that is queued is sent; behind other batches only a full one, so that a busy producer makes
// large ones.
func (o *outbox) nextField() []byte {
	if o.sent == len(o.kept) {
		full := len(o.queued) >= fullEvents || o.queuedBytes() >= fullBytes
		if len(o.queued) == 0 || len(o.kept) >= maxInFlight || len(o.kept) > 0 && !full {
			return nil
		}
		o.cutBatch()
	}
	o.sent++
	return o.kept[o.sent-1].field
}

func (o *outbox) queuedBytes() int {
	size := 0
	for _, event := range o.queued {
		if size += len(event); size >= fullBytes {
			break
		}
	}
	return size
}

func (o *outbox) cutBatch() {
	count, size := 0, 0
	for _, event := range o.queued {
		if count == maxBatchEvents || count > 0 && size+len(event) > maxBatchBytes {
			break
		}
		count, size = count+1, size+len(event)
	}
	cut := batch{bytes: size, first: o.next, last: o.next + int64(count) - 1}
	cut.field = o.field(o.queued[:count], size, cut.first)
	clear(o.queued[:count]) // for the garbage collector
	o.queued = o.queued[count:]
	o.kept = append(o.kept, cut)
	o.next += int64(count)
}

// heartbeat returns an empty batch, as a field of a request.
func (o *outbox) heartbeat() []byte { return o.field(nil, 0, 0) }

func (o *outbox) field(events [][]byte, size int, first int64) []byte {
	o.address.FirstProducerSequence = first
	head, err := proto.Marshal(o.address)
	if err != nil {
		panic(err) // the address was serialized before, when the producer was made
	}
	field := protowire.AppendTag(make([]byte, 0, len(head)+size+16), requestBatches, protowire.BytesType)
	field = protowire.AppendVarint(field, uint64(len(head)+size))
	field = append(field, head...)
	for _, event := range events {
		field = append(field, event...)
	}
	return field
}

// acknowledge drops what a receipt covers, and reports whether that was anything.
func (o *outbox) acknowledge(receipt *pb.BatchReceipt) bool {
	o.address.Create = nil
	dropped := 0
	for dropped < len(o.kept) && o.kept[dropped].last <= receipt.GetLastProducerSequence() {
		o.bytes -= o.kept[dropped].bytes
		o.durable = o.kept[dropped].last
		dropped++
	}
	if dropped == 0 {
		return false
	}
	clear(o.kept[:dropped])
	o.kept = o.kept[dropped:]
	o.sent = max(0, o.sent-dropped)
	o.receipt = receipt
	return true
}

// rewind sends all kept batches again, since the call that carried them ended.
func (o *outbox) rewind() { o.sent = 0 }

// holds reports whether a batch that begins with a number is kept.
func (o *outbox) holds(first int64) bool {
	for _, kept := range o.kept {
		if kept.first == first {
			return true
		}
	}
	return false
}

// drop forgets all events, and returns how many were not durable.
func (o *outbox) drop() int {
	count := len(o.queued)
	for _, kept := range o.kept {
		count += int(kept.last - kept.first + 1)
	}
	o.queued, o.kept, o.sent, o.bytes = nil, nil, 0, 0
	return count
}
