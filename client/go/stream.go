package lavant

import (
	"cmp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "lavant.dev/go/lavantpb"
)

// ReadOptions has the settings of a stream. The zero value reads the whole run, to its end.
type ReadOptions struct {
	// Consumer is the ID of the reader, such as "alice@example.org": one stream is open per run and consumer. Empty: a
	// consumer of its own.
	Consumer string
	// ResumeToken is the position to continue after, from Stream.Position or any other client.
	ResumeToken string
	// TakeOver displaces the stream of another session of the consumer, instead of failing with CONSUMER_BUSY.
	TakeOver bool
	// Start is where a stream without a resume token starts. Default StartBeginning.
	Start StartPosition
	// Stop is where the stream ends. Default StopRunFinished.
	Stop StopPosition
	// Types of events to read. Empty: with a resume token, those of the stream that it comes from; otherwise all.
	Types []EventType
	// Deltas is how deltas are sent. Default DeltasAll.
	Deltas DeltaMode
	// IdleTimeout is the time without an event after which the stream ends with reason IDLE. 1 s to 24 h. 0: none.
	IdleTimeout time.Duration
	// HeartbeatInterval is the time of silence after which the server sends a heartbeat; after three without any, the
	// connection counts as cut. 1 s to 60 s; default 15 s.
	HeartbeatInterval time.Duration
	// WaitForRun waits for the run to be created, instead of failing with RUN_NOT_FOUND.
	WaitForRun bool
}

// Stream reads the events of one run, over as many calls as it takes, and knows the position in them. One goroutine
// reads at a time; Position and the other accessors are safe for concurrent use.
type Stream struct {
	client  *Client
	session *session
	request *pb.StreamEventsRequest
	reading atomic.Bool

	mu     sync.Mutex
	opened *pb.StreamOpened
	end    *pb.StreamEnd
	caught bool
	rest   []*Event // of the last frame: received and not returned yet
	before mark     // the last frame
	after  mark
	last   int64 // sequence up to which events were returned
}

// mark is a resume token, with a sequence that it covers for sure.
type mark struct {
	token  string
	covers int64
}

func newStream(client *Client, run string, options ReadOptions) *Stream {
	consumer := cmp.Or(options.Consumer, "anonymous-"+uuid.NewString())
	token, last := splitPosition(options.ResumeToken)
	request := &pb.StreamEventsRequest{
		RunId:             run,
		ConsumerId:        consumer,
		TakeOver:          options.TakeOver,
		StartFrom:         &pb.StreamEventsRequest_Start{Start: options.Start},
		Stop:              options.Stop,
		Types:             options.Types,
		Deltas:            options.Deltas,
		HeartbeatInterval: durationpb.New(cmp.Or(options.HeartbeatInterval, 15*time.Second)),
		WaitForRun:        options.WaitForRun,
	}
	if options.IdleTimeout > 0 {
		request.IdleTimeout = durationpb.New(options.IdleTimeout)
	}
	begin := &session{id: uuid.NewString()}
	if options.Consumer != "" {
		begin = client.sessions.begin(run, consumer, options.TakeOver)
	}
	return &Stream{client: client, session: begin, request: request, after: mark{token: token}, before: mark{token: token}, last: last}
}

// Position returns the resume token after the last event that the stream has returned: store it when that event is
// handled. It is empty before the first frame.
//
// The server sends a token per frame. Between the events of a frame, the position is the token before the frame, "~" and
// the sequence of the last event that was returned, which this client and the Python one accept. With DeltasMerged, a
// delta that extends beyond such a position is returned whole, with text that was returned before.
func (s *Stream) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	mark := s.after
	if len(s.rest) > 0 {
		mark = s.before
	}
	if s.last > mark.covers {
		return mark.token + "~" + strconv.FormatInt(s.last, 10)
	}
	return mark.token
}

// Run returns the run as it was when the stream was opened last; nil before, and while the stream waits for the run.
func (s *Stream) Run() *Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened.GetRun()
}

// Fence returns the number of the consumer's lease, which grows with every opening: use it to reject writes of an older
// reader in your own storage. 0 before the stream is opened.
func (s *Stream) Fence() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened.GetFence()
}

// CaughtUp reports whether all events that were recorded when the stream was opened first have been returned.
func (s *Stream) CaughtUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caught && len(s.rest) == 0
}

// EndReason returns why the stream is complete: RUN_FINISHED, HEAD_REACHED or IDLE. UNSPECIFIED: it is not.
func (s *Stream) EndReason() pb.StreamEndReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.GetReconnect() {
		return pb.StreamEndReason_STREAM_END_REASON_UNSPECIFIED
	}
	return s.end.GetReason()
}

// splitPosition splits a position into a token and the sequence up to which events were returned; 0 for none.
func splitPosition(position string) (token string, last int64) {
	token, sequence, _ := strings.Cut(position, "~")
	// An ID of a server-sent event has the session of its reader after it.
	sequence, _, _ = strings.Cut(sequence, "~")
	last, _ = strconv.ParseInt(sequence, 10, 64)
	return token, last
}
