package lavant

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // healthCheckConfig has no effect without it
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

const (
	maxResponse = 8 << 20
	// A fixed window keeps what a slow reader has not read at the server: gRPC would let it grow to 16 MiB per stream.
	streamWindow     = 256 << 10
	connectionWindow = 4 << 20
	balanced         = `{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`
)

// connection is one connection to the server, or one to each of several, with the number of calls on it.
type connection struct {
	*grpc.ClientConn
	calls   int
	retired bool
}

// pool has the connections of a client: one for short calls, and as many as it takes for those that stay open, so that
// short calls never wait for them.
type pool struct {
	dial  func() (*grpc.ClientConn, error)
	limit int

	mu     sync.Mutex
	short  *connection
	long   []*connection
	all    map[*connection]struct{}
	closed bool
}

func newPool(targets []string, config *tls.Config, limit int) (*pool, error) {
	for _, target := range targets {
		if strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://") {
			return nil, fmt.Errorf("lavant: a target is host:port of gRPC, not the URL %s", target)
		}
	}
	p := &pool{
		dial:  func() (*grpc.ClientConn, error) { return dial(targets, config) },
		limit: limit,
		all:   make(map[*connection]struct{}),
	}
	c, err := p.dial() // connects to nothing yet, but shows whether the targets can work
	if err != nil {
		return nil, err
	}
	return p, c.Close()
}

func dial(targets []string, config *tls.Config) (*grpc.ClientConn, error) {
	security := insecure.NewCredentials()
	if config != nil {
		security = credentials.NewTLS(config)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithDisableRetry(),
		// Servers are internal services; a proxy of the environment is meant for the web.
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// A server that restarts is back within seconds.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: shortestDelay, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	target := targets[0]
	if len(targets) > 1 || strings.HasPrefix(target, "dns:") {
		options = append(options, grpc.WithDefaultServiceConfig(balanced))
	}
	if len(targets) > 1 {
		addresses := make([]resolver.Address, len(targets))
		for i, address := range targets {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, fmt.Errorf("lavant: a target is host:port: %w", err)
			}
			addresses[i] = resolver.Address{Addr: address, ServerName: host}
		}
		fixed := manual.NewBuilderWithScheme("lavant")
		fixed.InitialState(resolver.State{Addresses: addresses})
		options = append(options, grpc.WithResolvers(fixed))
		target = "lavant:///" + target
	}
	return grpc.NewClient(target, options...)
}

// forShort returns the connection of short calls, already counted; release it after the call.
func (p *pool) forShort() (*connection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.short == nil {
		c, err := p.open()
		if err != nil {
			return nil, err
		}
		p.short = c
	}
	p.short.calls++
	return p.short, nil
}

// forLong returns a connection with room for a call that stays open, already counted; release it after the call.
func (p *pool) forLong() (*connection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.long {
		if c.calls < p.limit {
			c.calls++
			return c, nil
		}
	}
	c, err := p.open()
	if err != nil {
		return nil, err
	}
	p.long = append(p.long, c)
	c.calls++
	return c, nil
}

func (p *pool) open() (*connection, error) {
	if p.closed {
		return nil, ErrClosed
	}
	conn, err := p.dial()
	if err != nil {
		return nil, err
	}
	c := &connection{ClientConn: conn}
	p.all[c] = struct{}{}
	return c, nil
}

// release counts the end of a call.
func (p *pool) release(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.calls--
	p.sweep(c)
}

// retire makes no more calls over a connection that fell silent: a dead one swallows the next call too. It is closed
// after its last call.
func (p *pool) retire(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.retired = true
	if p.short == c {
		p.short = nil
	}
	for i, other := range p.long {
		if other == c {
			p.long = append(p.long[:i], p.long[i+1:]...)
			break
		}
	}
	p.sweep(c)
}

func (p *pool) sweep(c *connection) {
	if _, open := p.all[c]; open && c.retired && c.calls == 0 {
		delete(p.all, c)
		c.Close()
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var failed []error
	for c := range p.all {
		failed = append(failed, c.Close())
	}
	p.short, p.long, p.all = nil, nil, nil
	return errors.Join(failed...)
}
