package lavant

import (
	"sync"

	"github.com/google/uuid"
)

// rememberedSessions bounds the consumers whose last session is remembered.
const rememberedSessions = 1_000

// session is one incarnation of a consumer, over all of its calls.
type session struct {
	id string

	mu      sync.Mutex
	attempt int64
	calls   int
	opened  bool
}

// next begins a call. It returns the call's attempt, and whether the session was open before.
func (s *session) next() (attempt int64, opened bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempt++
	s.calls++
	return s.attempt, s.opened
}

// open notes that the session has acquired the consumer's lease.
func (s *session) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = true
}

// leave ends a call.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
}

func (s *session) isIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls == 0
}

// sessions lets the next stream of a consumer continue the session of one that was left. The server lets such a stream
// in at once; another session is refused until it has noticed that the first stream was left.
type sessions struct {
	mu     sync.Mutex
	latest map[[2]string]*session
}

// begin returns the session of a new stream. To take over, it must be a new one: the server ignores take_over of a
// session that was displaced.
func (s *sessions) begin(run, consumer string, takeOver bool) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]string{run, consumer}
	if latest := s.latest[key]; latest != nil && !takeOver && latest.isIdle() {
		return latest
	}
	started := &session{id: uuid.NewString()}
	if s.latest == nil {
		s.latest = make(map[[2]string]*session)
	}
	s.latest[key] = started
	for other, latest := range s.latest {
		if len(s.latest) <= rememberedSessions {
			break
		}
		if other != key && latest.isIdle() {
			delete(s.latest, other)
		}
	}
	return started
}
