package lavant_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

// shared is a server for all tests that do not need one of their own.
var shared *server

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "lavant-go")
	if err != nil {
		panic(err)
	}
	shared = &server{folder: folder}
	if err := shared.start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("LAVANT_TARGET", shared.target) // for the examples
	code := m.Run()
	shared.kill()
	os.RemoveAll(folder)
	os.Exit(code)
}

// server is a lavant server in a process of its own, whose port and store survive it.
type server struct {
	folder, target string
	process        *exec.Cmd
	lines          *bufio.Reader
}

func newServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := &server{folder: t.TempDir()}
	if err := s.start(flags...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

func (s *server) start(flags ...string) error {
	python := os.Getenv("LAVANT_PYTHON")
	if python == "" {
		python = filepath.Join("..", "..", ".venv", "bin", "python")
	}
	listen := s.target
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	s.process = exec.Command(python, append([]string{
		"-m", "lavant.server", "--listen", listen, "--http", "off", "--admin", "off",
		"--store", "sqlite:///" + filepath.Join(s.folder, "lavant.db"),
	}, flags...)...)
	s.process.Stderr = os.Stderr
	out, err := s.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("no server (make .venv/.ready, or set LAVANT_PYTHON): %w", err)
	}
	s.lines = bufio.NewReader(out)
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the server did not start: %w", err)
		}
		if _, rest, ok := strings.Cut(line, "grpc="); ok {
			s.target = strings.Fields(rest)[0]
			return nil
		}
	}
}

func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

func (s *server) restart(t *testing.T) {
	t.Helper()
	s.kill()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// proxy forwards connections to a server. Each is cut after so many bytes of the server's answers, a later one after half
// as many more, so that in the end a frame comes through; 0: never.
type proxy struct {
	target   string
	listener net.Listener
	wait     sync.WaitGroup

	mu       sync.Mutex
	after    int64
	accepted int
	frozen   bool
	open     map[net.Conn]struct{}
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: target, listener: listener, open: make(map[net.Conn]struct{})}
	p.wait.Add(1)
	go p.accept()
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		p.wait.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	defer p.wait.Done()
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		p.accepted++
		after := p.after
		p.after += after / 2
		p.open[near], p.open[far] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.wait.Add(2)
		go p.copy(far, near, 0)
		go p.copy(near, far, after)
	}
}

// copy copies up to a number of bytes, and then closes both. A frozen proxy swallows them.
func (p *proxy) copy(to, from net.Conn, after int64) {
	defer p.wait.Done()
	defer to.Close()
	defer from.Close()
	if after > 0 {
		_, _ = io.CopyN(to, from, after)
		return
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		frozen := p.frozen
		p.mu.Unlock()
		if !frozen {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

// cut closes the open connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		conn.Close()
	}
	clear(p.open)
}

// freeze lets the open connections and later ones swallow everything, or no more.
func (p *proxy) freeze(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
}

func newClient(t *testing.T, config lavant.Config) *lavant.Client {
	t.Helper()
	if len(config.Targets) == 0 {
		config.Targets = []string{shared.target}
	}
	client, err := lavant.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// limited returns a context that ends with the test, and before it hangs.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// note returns the event of a counted note.
func note(number int) *lavant.Event {
	return &lavant.Event{Payload: &pb.Event_Custom{Custom: &pb.CustomEvent{
		Name: "test.note", ValueJson: fmt.Sprint(number),
	}}}
}

// record publishes a run of so many notes, and its end.
func record(t *testing.T, client *lavant.Client, notes int) string {
	t.Helper()
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	for number := range notes {
		if err := run.Publish(ctx, note(number)); err != nil {
			t.Fatal(err)
		}
	}
	must(run.Finish(ctx, nil))(t)
	return run.ID()
}

// sequences reads a stream to its end and returns the events' sequences.
func sequences(t *testing.T, ctx context.Context, stream *lavant.Stream) (found []int64) {
	t.Helper()
	for event, err := range stream.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, event.GetSequence())
	}
	return found
}

func expectCounted(t *testing.T, found []int64, first, last int64) {
	t.Helper()
	if int64(len(found)) != last-first+1 {
		t.Fatalf("%d events, not those from %d to %d", len(found), first, last)
	}
	for i, sequence := range found {
		if sequence != first+int64(i) {
			t.Fatalf("event %d has the sequence %d, not %d", i, sequence, first+int64(i))
		}
	}
}

func expectError(t *testing.T, err, wanted error) {
	t.Helper()
	if !errors.Is(err, wanted) {
		t.Fatalf("the error is %v, not %v", err, wanted)
	}
}
