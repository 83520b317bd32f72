package lavant_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

// notes reads the numbers of a run's notes.
func notes(t *testing.T, client *lavant.Client, run string) (found []string) {
	t.Helper()
	for event, err := range client.Runs.Events(limited(t), run, pb.EventType_EVENT_TYPE_CUSTOM) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, event.GetCustom().GetValueJson())
	}
	return found
}

func expectNotes(t *testing.T, found []string, count int) {
	t.Helper()
	if len(found) != count {
		t.Fatalf("%d notes, not %d", len(found), count)
	}
	for number, text := range found {
		if text != fmt.Sprint(number) {
			t.Fatalf("note %d is %s", number, text)
		}
	}
}

func TestPublish_ConnectionsCutAllTheTime_StoresEachEventOnce(t *testing.T) {
	between := newProxy(t, shared.target)
	client := newClient(t, lavant.Config{Targets: []string{between.address()}})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	const count = 3_000
	for number := range count {
		switch number % 300 {
		case 100: // what is sent from here on is lost with the connection
			must(run.Flush(ctx))(t)
			between.freeze(true)
		case 200:
			between.cut()
			between.freeze(false)
		}
		if err := run.Publish(ctx, note(number)); err != nil {
			t.Fatal(err)
		}
	}
	between.cut()
	receipt := must(run.Finish(ctx, nil))(t)
	if receipt.GetLastSequence() != count+2 || receipt.GetLastProducerSequence() != count+2 {
		t.Fatalf("the receipt is %v", receipt)
	}
	expectNotes(t, notes(t, newClient(t, lavant.Config{}), run.ID()), count)
}

func TestPublish_ServerKilled_StoresEachEventOnce(t *testing.T) {
	own := newServer(t)
	client := newClient(t, lavant.Config{Targets: []string{own.target}})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	for number := range 200 {
		if number == 100 {
			own.restart(t)
		}
		if err := run.Publish(ctx, note(number)); err != nil {
			t.Fatal(err)
		}
	}
	must(run.Finish(ctx, nil))(t)
	expectNotes(t, notes(t, client, run.ID()), 200)
}

func TestPublish_HigherEpoch_FencesTheFirst(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	first := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{Producer: lavant.ProducerOptions{ID: "p"}}))(t)
	must(first.Flush(ctx))(t)
	second := must(client.Runs.Continue(first.ID(), lavant.ProducerOptions{ID: "p", Epoch: 2}))(t)
	if err := second.Publish(ctx, note(0)); err != nil {
		t.Fatal(err)
	}
	must(second.Flush(ctx))(t)
	if err := first.Publish(ctx, note(1)); err != nil {
		t.Fatal(err)
	}
	_, err := first.Flush(ctx)
	expectError(t, err, lavant.ErrProducerFenced)
	expectError(t, first.Publish(ctx, note(2)), lavant.ErrProducerFenced)
	must(second.Finish(ctx, nil))(t)
	expectNotes(t, notes(t, client, first.ID()), 1)
}

func TestPublish_InvalidEvent_NamesTheField(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	text := &pb.TextDelta{MessageId: "never-started", Text: "hello"}
	if err := run.Publish(ctx, &lavant.Event{Payload: &pb.Event_TextDelta{TextDelta: text}}); err != nil {
		t.Fatal(err)
	}
	_, err := run.Finish(ctx, nil)
	expectError(t, err, lavant.ErrInvalidField)
	var refused *lavant.Error
	if !errors.As(err, &refused) || len(refused.Violations) != 1 || !strings.Contains(refused.Violations[0].GetField(), "message_id") {
		t.Fatalf("the error is %#v", refused)
	}
}

func TestPublish_TextThatIsNotUTF8_FailsAtOnce(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "noter", lavant.StartOptions{}))(t)
	broken := note(0)
	broken.GetCustom().Name = "\xff"
	if err := run.Publish(ctx, broken); err == nil {
		t.Fatal("an event with broken text was queued")
	}
	must(run.Finish(ctx, nil))(t)
}

func TestPublish_FullOutbox_WaitsAsLongAsTheContext(t *testing.T) {
	client := newClient(t, lavant.Config{Targets: []string{"127.0.0.1:1"}})
	ctx, cancel := context.WithTimeout(limited(t), 300*time.Millisecond)
	defer cancel()
	options := lavant.StartOptions{Producer: lavant.ProducerOptions{QueueBytes: 1_000}}
	run := must(client.Runs.Start(ctx, "noter", options))(t)
	var err error
	for number := 0; err == nil; number++ {
		err = run.Publish(ctx, note(number))
	}
	expectError(t, err, context.DeadlineExceeded)
	run.Abandon()
	expectError(t, run.Publish(context.Background(), note(0)), lavant.ErrClosed)
}

func TestCancel_OpenRun_EndsTheContextOfItsWork(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "worker", lavant.StartOptions{}))(t)
	work, stop := run.Context(ctx)
	defer stop()
	must(run.Flush(ctx))(t)
	must(client.Runs.Cancel(ctx, run.ID(), "no longer needed"))(t)
	<-work.Done()
	var cancelled *lavant.CancelledError
	if !errors.As(context.Cause(work), &cancelled) || cancelled.Message != "no longer needed" {
		t.Fatalf("the cause is %v", context.Cause(work))
	}
	must(run.Finish(ctx, context.Cause(work)))(t)
	ended := must(client.Runs.Wait(ctx, run.ID()))(t)
	if ended.GetState() != pb.RunState_RUN_STATE_CANCELLED || ended.GetResult().GetError().GetMessage() != "no longer needed" {
		t.Fatalf("the run is %v", ended)
	}
}

func TestProducer_SilentRun_IsNotAbandoned(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "thinker", lavant.StartOptions{ProducerTimeout: time.Second}))(t)
	must(run.Flush(ctx))(t)
	waited, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	if ended, err := client.Runs.Wait(waited, run.ID()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the run ended: %v, %v", ended, err)
	}
	must(run.Finish(ctx, nil))(t)
}
