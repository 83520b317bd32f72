package lavant_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

func TestClose_AfterEverything_LeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	finished := record(t, client, 10)
	for range client.Runs.Read(ctx, finished, lavant.ReadOptions{}) {
		break
	}
	open := must(client.Runs.Start(ctx, "open", lavant.StartOptions{}))(t)
	must(open.Flush(ctx))(t)
	must(client.Runs.Start(ctx, "unsent", lavant.StartOptions{}))(t)
	abandoned := must(client.Runs.Start(ctx, "abandoned", lavant.StartOptions{}))(t)
	abandoned.Abandon()
	_, stop := open.Context(ctx)
	stop()
	for range client.Runs.Watch(ctx, nil, "") {
		break
	}
	must(client.Runs.Continue(finished, lavant.ProducerOptions{}))(t) // never publishes
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
	_, err := client.Runs.Get(ctx, finished)
	expectError(t, err, lavant.ErrClosed)
	_, err = client.Runs.Start(ctx, "late", lavant.StartOptions{})
	expectError(t, err, lavant.ErrClosed)
}

func TestConnections_MoreStreamsThanOneAllows_OpensFurtherOnes(t *testing.T) {
	between := newProxy(t, shared.target)
	client := newClient(t, lavant.Config{Targets: []string{between.address()}, CallsPerConnection: 20})
	ctx := limited(t)
	run := must(newClient(t, lavant.Config{}).Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	must(run.Flush(ctx))(t)
	var readers, opened sync.WaitGroup
	var failures atomic.Int32
	for range 50 {
		readers.Add(1)
		opened.Add(1)
		go func() {
			defer readers.Done()
			count := 0
			for _, err := range client.Runs.Read(ctx, run.ID(), lavant.ReadOptions{}) {
				if count++; count == 1 {
					opened.Done()
				}
				if err != nil {
					failures.Add(1)
				}
			}
		}()
	}
	opened.Wait()
	between.mu.Lock()
	accepted := between.accepted
	between.mu.Unlock()
	must(run.Finish(ctx, nil))(t)
	readers.Wait()
	if accepted != 3 || failures.Load() > 0 {
		t.Fatalf("50 streams over %d connections, %d failed", accepted, failures.Load())
	}
}

func TestTargets_OneOfSeveralDies_OthersServe(t *testing.T) {
	first, second := newProxy(t, shared.target), newProxy(t, shared.target)
	client := newClient(t, lavant.Config{Targets: []string{first.address(), second.address()}})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	must(run.Flush(ctx))(t)
	first.listener.Close()
	first.cut()
	for number := range 100 {
		if err := run.Publish(ctx, note(number)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Runs.Get(ctx, run.ID()); err != nil {
			t.Fatal(err)
		}
	}
	must(run.Finish(ctx, nil))(t)
	expectNotes(t, notes(t, client, run.ID()), 100)
}

func TestCredentials_KeyOverTLS_IsAcceptedAndRenewed(t *testing.T) {
	certificate, key, roots := selfSigned(t)
	own := &server{folder: t.TempDir()}
	if err := own.start("--auth", "keys", "--init-key", "--tls-cert", certificate, "--tls-key", key); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.kill)
	secret := ""
	for secret == "" {
		line, err := own.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, secret, _ = strings.Cut(strings.TrimSpace(line), "only now: ")
	}
	config := lavant.Config{Targets: []string{own.target}, TLS: &tls.Config{RootCAs: roots}}
	ctx := limited(t)
	_, err := newClient(t, config).Runs.Get(ctx, "nowhere")
	expectError(t, err, lavant.ErrUnauthenticated)
	var asked atomic.Int32
	config.Token = func(context.Context) (string, error) {
		switch asked.Add(1) {
		case 1:
			return "", errors.New("the issuer is out of reach")
		case 2:
			return "expired", nil
		}
		return secret, nil
	}
	_, err = newClient(t, config).Runs.Get(ctx, "nowhere")
	expectError(t, err, lavant.ErrRunNotFound)
	if asked.Load() != 3 {
		t.Fatalf("the token was asked for %d times", asked.Load())
	}
	asked.Store(0)
	record(t, newClient(t, config), 3)
	config.Token = func(context.Context) (string, error) {
		asked.Add(1)
		return "expired", nil
	}
	asked.Store(0)
	for _, err := range newClient(t, config).Runs.Read(ctx, "nowhere", lavant.ReadOptions{}) {
		expectError(t, err, lavant.ErrUnauthenticated)
	}
	if asked.Load() != 2 {
		t.Fatalf("the token was asked for %d times", asked.Load())
	}
}

func TestNewClient_CredentialInPlainTextToAnotherMachine_IsRefused(t *testing.T) {
	for target, allowed := range map[string]bool{
		"lavant.example.org:7447": false, "192.0.2.1:7447": false, "dns:///example.org:7447": false,
		"localhost:7447": true, "127.0.0.9:7447": true, "[::1]:7447": true, "unix:/run/lavant.sock": true,
	} {
		client, err := lavant.NewClient(lavant.Config{Targets: []string{target}, APIKey: "key"})
		if (err == nil) != allowed {
			t.Errorf("%s: %v", target, err)
		}
		if err == nil {
			client.Close()
		}
	}
	if _, err := lavant.NewClient(lavant.Config{Targets: []string{"https://localhost:7447"}}); err == nil {
		t.Error("a URL was accepted")
	}
}

func TestReasons_OfTheContract_AreAllThere(t *testing.T) {
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, number := range pb.ErrorReason_value {
		reason := strings.TrimPrefix(name, "ERROR_REASON_")
		if number != 0 && !strings.Contains(string(source), `"`+reason+`"`) {
			t.Errorf("no constant for %s", reason)
		}
	}
}

// selfSigned writes a certificate of 127.0.0.1 and its key, and returns the paths and who trusts it.
func selfSigned(t *testing.T) (certificate, key string, roots *x509.CertPool) {
	t.Helper()
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private))(t)
	roots = x509.NewCertPool()
	roots.AddCert(must(x509.ParseCertificate(der))(t))
	write := func(name, kind string, bytes []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	encoded := must(x509.MarshalPKCS8PrivateKey(private))(t)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", encoded), roots
}
