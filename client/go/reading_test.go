package lavant_test

import (
	"context"
	"testing"
	"time"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

func TestRead_WholeRun_ReturnsEachEventOnce(t *testing.T) {
	client := newClient(t, lavant.Config{})
	run := record(t, client, 2_500)
	stream := client.Runs.Stream(run, lavant.ReadOptions{})
	expectCounted(t, sequences(t, limited(t), stream), 1, 2_502)
	if reason := stream.EndReason(); reason != pb.StreamEndReason_STREAM_END_REASON_RUN_FINISHED {
		t.Fatalf("ended by %s", reason)
	}
	if !stream.CaughtUp() || stream.Fence() == 0 || stream.Run().GetRunId() != run {
		t.Fatalf("caught up %v, fence %d, run %v", stream.CaughtUp(), stream.Fence(), stream.Run())
	}
}

func TestRead_CutAfterAnyNumberOfBytes_ReturnsEachEventOnce(t *testing.T) {
	run := record(t, newClient(t, lavant.Config{}), 600)
	between := newProxy(t, shared.target)
	for _, after := range []int64{5_000, 15_011, 30_013} {
		between.mu.Lock()
		between.after, between.accepted = after, 0
		between.mu.Unlock()
		client := newClient(t, lavant.Config{Targets: []string{between.address()}})
		stream := client.Runs.Stream(run, lavant.ReadOptions{Consumer: "cut"})
		expectCounted(t, sequences(t, limited(t), stream), 1, 602)
		between.mu.Lock()
		if between.accepted < 2 {
			t.Fatalf("%d connections: none was cut", between.accepted)
		}
		between.mu.Unlock()
		client.Close()
	}
}

func TestPosition_InTheMiddleOfAFrame_ContinuesWithTheNextEvent(t *testing.T) {
	client := newClient(t, lavant.Config{})
	run := record(t, client, 50)
	for _, stop := range []int64{1, 17, 52} {
		stream := client.Runs.Stream(run, lavant.ReadOptions{})
		for event, err := range stream.Events(limited(t)) {
			if err != nil {
				t.Fatal(err)
			}
			if event.GetSequence() == stop {
				break
			}
		}
		later := client.Runs.Stream(run, lavant.ReadOptions{ResumeToken: stream.Position()})
		if position := later.Position(); position != stream.Position() {
			t.Fatalf("the position %q became %q", stream.Position(), position)
		}
		expectCounted(t, sequences(t, limited(t), later), stop+1, 52)
		expectCounted(t, sequences(t, limited(t), stream), stop+1, 52) // as does another loop over the stream itself
	}
}

func TestRead_ConsumerLeftItsStream_ContinuesAtOnce(t *testing.T) {
	client := newClient(t, lavant.Config{})
	run := record(t, client, 3_000)
	for range 20 {
		for _, err := range client.Runs.Read(limited(t), run, lavant.ReadOptions{Consumer: "alice"}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
}

func TestRead_RivalWithTakeOver_DisplacesTheFirst(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	must(run.Flush(ctx))(t)
	opened, ended := make(chan struct{}), make(chan error)
	go func() {
		for _, err := range client.Runs.Read(ctx, run.ID(), lavant.ReadOptions{Consumer: "alice"}) {
			if err != nil {
				ended <- err
				return
			}
			close(opened)
		}
	}()
	<-opened
	rival := newClient(t, lavant.Config{})
	for _, err := range rival.Runs.Read(ctx, run.ID(), lavant.ReadOptions{Consumer: "alice"}) {
		expectError(t, err, lavant.ErrConsumerBusy)
	}
	for _, err := range rival.Runs.Read(ctx, run.ID(), lavant.ReadOptions{Consumer: "alice", TakeOver: true}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	expectError(t, <-ended, lavant.ErrStreamDisplaced)
}

func TestRead_ContextEnds_ReturnsItsCause(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx, cancel := context.WithCancel(limited(t))
	run := must(client.Runs.Create(ctx, "", &lavant.RunSettings{Name: "silent"}))(t)
	time.AfterFunc(100*time.Millisecond, cancel)
	for event, err := range client.Runs.Read(ctx, run.GetRunId(), lavant.ReadOptions{}) {
		if event != nil {
			t.Fatalf("an event of a run that has none: %v", event)
		}
		expectError(t, err, context.Canceled)
	}
}

func TestRead_DeadConnection_ContinuesOverAnotherOne(t *testing.T) {
	between := newProxy(t, shared.target)
	writer := newClient(t, lavant.Config{})
	reader := newClient(t, lavant.Config{Targets: []string{between.address()}})
	ctx := limited(t)
	run := must(writer.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	must(run.Flush(ctx))(t)
	stream := reader.Runs.Stream(run.ID(), lavant.ReadOptions{HeartbeatInterval: time.Second})
	last := int64(0)
	for event, err := range stream.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if event.GetSequence() != last+1 {
			t.Fatalf("%d after %d", event.GetSequence(), last)
		}
		last = event.GetSequence()
		if last == 1 {
			// The connection swallows everything from here on; a new one does not.
			between.freeze(true)
			must(run.Finish(ctx, nil))(t)
			time.AfterFunc(2_500*time.Millisecond, func() { between.freeze(false) })
		}
	}
	if last != 2 {
		t.Fatalf("the last event is %d", last)
	}
}

func TestRead_UnknownRun_NamesTheReason(t *testing.T) {
	client := newClient(t, lavant.Config{})
	_, err := client.Runs.Stream("nowhere", lavant.ReadOptions{}).Text(limited(t))
	expectError(t, err, lavant.ErrRunNotFound)
	for _, err := range client.Runs.Read(limited(t), record(t, client, 1), lavant.ReadOptions{ResumeToken: "x"}) {
		expectError(t, err, lavant.ErrResumeTokenInvalid)
	}
}
