package lavant

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	shortestDelay = 100 * time.Millisecond
	longestDelay  = 5 * time.Second
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
