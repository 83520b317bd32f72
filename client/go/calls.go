package lavant

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// unanswered is the time without an answer to a single call after which its connection counts as dead.
const unanswered = 10 * time.Second

// method is a call of a service's stub, as the generated interfaces have them.
type method[Stub, Request, Response any] func(Stub, context.Context, Request, ...grpc.CallOption) (Response, error)

// call makes a single call within the client's timeout, and repeats it after cuts: all of lavant's calls may be
// repeated. An attempt without an answer in a third of the time is repeated over another connection.
func call[Stub, Request, Response any](
	ctx context.Context, c *Client, stub func(grpc.ClientConnInterface) Stub, do method[Stub, Request, Response], request Request,
) (Response, error) {
	patience := max(unanswered, c.timeout/3)
	return repeat(ctx, c, c.timeout, func(ctx context.Context) (Response, error) {
		connection, err := c.pool.forShort()
		if err != nil {
			var none Response
			return none, err
		}
		return attempt(ctx, c, connection, patience, stub, do, request)
	})
}

// attempt makes a single call once, within patience.
func attempt[Stub, Request, Response any](
	ctx context.Context, c *Client, over *connection, patience time.Duration,
	stub func(grpc.ClientConnInterface) Stub, do method[Stub, Request, Response], request Request,
) (response Response, err error) {
	defer c.pool.release(over)
	if ctx, err = c.credential.authorize(ctx); err != nil {
		return response, err
	}
	own, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err = do(stub(over), own, request)
	err = errorOf(err)
	var failed *Error
	if errors.As(err, &failed) && failed.Reason == "" && failed.Code == codes.DeadlineExceeded && ctx.Err() == nil {
		c.pool.retire(over)
	}
	return response, err
}

// repeat makes attempts until one succeeds, fails for good, or the time is over. The error is then that of the last
// attempt, or the context's.
func repeat[Response any](
	ctx context.Context, c *Client, timeout time.Duration, try func(context.Context) (Response, error),
) (Response, error) {
	own, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var retry retries
	var last error
	for {
		response, err := try(own)
		if err == nil {
			return response, nil
		}
		if ctx.Err() != nil {
			return response, fmt.Errorf("lavant: %w", context.Cause(ctx))
		}
		if own.Err() == nil || last == nil {
			last = err
		}
		delay, again := retry.after(err, c.credential, isRetried)
		deadline, _ := own.Deadline()
		if !again || time.Until(deadline) <= delay {
			return response, last
		}
		if err := sleep(own, delay); err != nil {
			return response, last
		}
	}
}

// watchdog cancels a call whose connection fell silent. It counts from each Reset; Stop it while nothing is awaited.
type watchdog struct {
	*time.Timer
	barked atomic.Bool
}

func watch(silence time.Duration, cancel context.CancelFunc) *watchdog {
	w := &watchdog{}
	w.Timer = time.AfterFunc(silence, func() {
		w.barked.Store(true)
		cancel()
	})
	return w
}
