package lavant

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	shortestDelay = 100 * time.Millisecond
	longestDelay  = 5 * time.Second
	steady        = time.Second // calls that stay open for so long are few, whatever they bring
)

// delays is a sequence of delays: doubled from the shortest to the longest one, half of each random. The zero value is
// ready; set it to the zero value on progress.
type delays struct{ ceiling time.Duration }

// next returns the next delay, added to the one that the server asks for.
func (d *delays) next(asked time.Duration) time.Duration {
	d.ceiling = min(max(2*d.ceiling, shortestDelay), longestDelay)
	return asked + d.ceiling/2 + rand.N(d.ceiling/2)
}

// sleep waits for a time, or returns the context's error.
func sleep(ctx context.Context, delay time.Duration) error {
	if delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retries decides whether and when a call is made again. A call makes progress if it brings something new, or is open
// for a second: to be open is not enough, because a server may open and end every call at once. The zero value is ready.
type retries struct {
	delays     delays
	renewed    bool
	openTime   time.Time // of the present call; zero until it is open
	progressed bool
}

// begin notes that a call begins.
func (r *retries) begin() { r.openTime, r.progressed = time.Time{}, false }

// open notes that the call is open.
func (r *retries) open() { r.openTime = time.Now() }

// progress notes that the call has brought something new.
func (r *retries) progress() { r.progressed = true }

func (r *retries) madeProgress() bool {
	return r.progressed || !r.openTime.IsZero() && time.Since(r.openTime) >= steady
}

// settle forgets earlier calls if the one that has ended made progress. It reports whether no earlier one is left.
func (r *retries) settle() bool {
	if r.madeProgress() {
		*r = retries{}
	}
	return r.delays == delays{}
}

// planned returns the delay after a call that the server has ended as planned.
func (r *retries) planned(asked time.Duration) time.Duration {
	if r.madeProgress() {
		*r = retries{}
		return asked
	}
	return r.delays.next(asked)
}

// after returns the delay before the next call, and whether there is to be one. A refused credential is replaced once.
func (r *retries) after(err error, credential credential, retried func(*Error) bool) (time.Duration, bool) {
	var failed *Error
	if !errors.As(err, &failed) {
		return 0, false
	}
	if failed.Reason == ErrUnauthenticated && credential.canRenew() && !r.renewed {
		r.renewed = true
		return r.delays.next(0), true
	}
	if !retried(failed) {
		return 0, false
	}
	return r.delays.next(failed.RetryAfter), true
}
