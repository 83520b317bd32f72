package lavant

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Config has the settings of a Client. The zero value connects to LAVANT_TARGET, or localhost:7447, in plain text.
type Config struct {
	// Targets are addresses of the server, as host:port. With several, or with one dns:///name:port, calls go to all
	// healthy ones in turn.
	Targets []string
	// TLS has the settings of encrypted connections. Nil: plain text.
	TLS *tls.Config
	// APIKey is the credential of each call. Default: LAVANT_API_KEY, unless Token is set.
	APIKey string
	// Token returns the credential instead, such as a JWT. It is called for each call, also for each reconnect of a
	// stream, and once more after the server has refused it: keep there what is expensive to obtain. It must be safe for
	// concurrent use. An error counts as a cut connection.
	Token func(context.Context) (string, error)
	// Insecure allows credentials in plain text to other machines than this one.
	Insecure bool
	// Timeout bounds single calls with their retries. Default 30 s. Streams are bounded by their contexts.
	Timeout time.Duration
	// CallsPerConnection is the number of open calls after which a further connection is opened. Default 1,000, which
	// lavant allows; set less for a proxy that allows less, as many with 100 do: gRPC lets calls beyond wait unseen.
	CallsPerConnection int
	// Logger receives warnings about connections and about events that are lost. Default: slog.Default().
	Logger *slog.Logger
}

// Client makes calls to a lavant server. It is safe for concurrent use; create one for the whole program. The first
// call opens the connection.
type Client struct {
	// Runs has the calls about runs and their events.
	Runs *Runs
	// Scores has the calls about scores.
	Scores *Scores

	timeout    time.Duration
	credential credential
	log        *slog.Logger
	pool       *pool
	sessions   sessions

	mu        sync.Mutex
	producers map[*publisher]struct{}
	closed    bool
}

// NewClient returns a client, without connecting. It fails for settings that cannot work.
func NewClient(config Config) (*Client, error) {
	targets := config.Targets
	if len(targets) == 0 {
		targets = []string{cmp.Or(os.Getenv("LAVANT_TARGET"), "localhost:7447")}
	}
	key := config.APIKey
	if key == "" && config.Token == nil {
		key = os.Getenv("LAVANT_API_KEY")
	}
	credential, err := newCredential(key, config.Token, config.TLS != nil || config.Insecure, targets)
	if err != nil {
		return nil, err
	}
	pool, err := newPool(targets, config.TLS, cmp.Or(config.CallsPerConnection, 1_000))
	if err != nil {
		return nil, err
	}
	client := &Client{
		timeout:    cmp.Or(config.Timeout, 30*time.Second),
		credential: credential,
		log:        config.Logger,
		pool:       pool,
		producers:  make(map[*publisher]struct{}),
	}
	if client.log == nil {
		client.log = slog.Default()
	}
	client.Runs = &Runs{client}
	client.Scores = &Scores{client}
	return client, nil
}

// Close ends all calls, and closes the connections. Events of producers that are not durable are lost, which is logged:
// call Finish or Flush of each producer before.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	open := make([]*publisher, 0, len(c.producers))
	for producer := range c.producers {
		open = append(open, producer)
	}
	c.mu.Unlock()
	for _, producer := range open {
		producer.close()
	}
	return c.pool.close()
}

// add registers a producer that is to be closed with the client.
func (c *Client) add(producer *publisher) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.producers[producer] = struct{}{}
	return nil
}

func (c *Client) remove(producer *publisher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.producers, producer)
}
