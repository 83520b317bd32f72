package lavant

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"google.golang.org/grpc/metadata"
)

// credential is what each call is authorized with: nothing, a fixed key, or what a function returns.
type credential struct {
	key   string
	token func(context.Context) (string, error)
}

func newCredential(key string, token func(context.Context) (string, error), private bool, targets []string) (credential, error) {
	if key != "" && token != nil {
		return credential{}, errors.New("lavant: a call has one credential: set APIKey or Token")
	}
	if (key != "" || token != nil) && !private {
		for _, target := range targets {
			if !isLoopback(target) {
				return credential{}, fmt.Errorf("lavant: the credential would be sent to %s in plain text: set TLS, or Insecure", target)
			}
		}
	}
	return credential{key, token}, nil
}

// canRenew reports whether another credential may be had after the server has refused one.
func (c credential) canRenew() bool { return c.token != nil }

// authorize returns a context for a call with the credential. An error has no text of the token's source, which may
// hold secrets.
func (c credential) authorize(ctx context.Context) (context.Context, error) {
	key := c.key
	if c.token != nil {
		var err error
		if key, err = c.token(ctx); err != nil {
			return nil, cut("Config.Token failed with a %T", err)
		}
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, cut("Config.Token returned no printable ASCII text without spaces")
		}
	}
	if key == "" {
		return ctx, nil
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key), nil
}

// isLoopback reports whether a target is this machine.
func isLoopback(target string) bool {
	if strings.HasPrefix(target, "unix:") {
		return true
	}
	target = target[strings.LastIndex(target, "/")+1:]
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = target
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && address.IsLoopback()
}
