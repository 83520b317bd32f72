package lavant_test

import (
	"context"
	"testing"
	"time"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

func TestRuns_CreateGetListDelete_AgreeWithEachOther(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	settings := &lavant.RunSettings{Name: "listed", Labels: map[string]string{"test": t.Name()}}
	created := must(client.Runs.Create(ctx, "", settings))(t)
	again := must(client.Runs.Create(ctx, created.GetRunId(), settings))(t)
	if again.GetCreateTime().AsTime() != created.GetCreateTime().AsTime() {
		t.Fatal("another run was created")
	}
	_, err := client.Runs.Create(ctx, created.GetRunId(), &lavant.RunSettings{Name: "other"})
	expectError(t, err, lavant.ErrRunExists)
	for range 4 {
		must(client.Runs.Create(ctx, "", settings))(t)
	}
	size, count := int32(2), 0
	request := &pb.ListRunsRequest{Filter: &lavant.RunFilter{Labels: settings.GetLabels()}, PageSize: &size}
	for _, err := range client.Runs.ListPages(ctx, request) {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if count != 5 {
		t.Fatalf("%d runs", count)
	}
	expectError(t, client.Runs.Delete(ctx, created.GetRunId()), lavant.ErrRunNotEnded)
	ended := record(t, client, 1)
	if err := client.Runs.Delete(ctx, ended); err != nil {
		t.Fatal(err)
	}
	_, err = client.Runs.Get(ctx, ended)
	expectError(t, err, lavant.ErrRunNotFound)
}

func TestWatch_RunsThatComeAndGo_ReturnsEachChange(t *testing.T) {
	own := newServer(t)
	client := newClient(t, lavant.Config{Targets: []string{own.target}})
	ctx := limited(t)
	labels := map[string]string{"test": t.Name()}
	filter := &lavant.RunFilter{Labels: labels, States: []lavant.RunState{pb.RunState_RUN_STATE_RUNNING}}
	first := must(client.Runs.Start(ctx, "first", lavant.StartOptions{Labels: labels}))(t)
	must(first.Flush(ctx))(t)
	var second *lavant.RunProducer
	var found []lavant.ChangeType
	for change, err := range client.Runs.Watch(ctx, filter, "") {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, change.Type)
		switch len(found) {
		case 2: // the first run, and that the watch has caught up
			own.restart(t) // which the watch survives
			second = must(client.Runs.Start(ctx, "second", lavant.StartOptions{Labels: labels}))(t)
		case 3:
			if change.RunID != second.ID() || change.ResumeToken == "" {
				t.Fatalf("the change is %v", change)
			}
			must(second.Finish(ctx, nil))(t)
		}
		if len(found) == 4 {
			break
		}
	}
	expected := []lavant.ChangeType{lavant.RunChanged, lavant.WatchCaughtUp, lavant.RunChanged, lavant.RunLeft}
	for i, change := range found {
		if change != expected[i] {
			t.Fatalf("the changes are %v, not %v", found, expected)
		}
	}
	must(first.Finish(ctx, nil))(t)
}

func TestWatch_TokenOfAnotherStore_StartsAgain(t *testing.T) {
	client := newClient(t, lavant.Config{})
	for change, err := range client.Runs.Watch(limited(t), nil, "of-another-store") {
		if err != nil {
			t.Fatal(err)
		}
		if change.Type != lavant.WatchReset {
			t.Fatalf("the first change is %v", change)
		}
		break
	}
}

func TestWait_RunThatGoesOn_EndsWithTheContext(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "endless", lavant.StartOptions{}))(t)
	must(run.Flush(ctx))(t)
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := client.Runs.Wait(short, run.ID())
	expectError(t, err, context.DeadlineExceeded)
	must(run.Finish(ctx, nil))(t)
	if ended := must(client.Runs.Wait(ctx, run.ID()))(t); !lavant.HasEnded(ended) {
		t.Fatalf("the run is %v", ended)
	}
}

func TestScores_RecordedTwice_AreListedOnce(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := record(t, client, 1)
	score := lavant.Passed("helpful", false)
	score.Evaluator = &pb.Evaluator{Name: "ada"}
	id := must(client.Scores.Record(ctx, run, score, lavant.ScoreOptions{}))(t)
	must(client.Scores.Record(ctx, run, score, lavant.ScoreOptions{ID: id}))(t)
	filter := &pb.ScoreFilter{SubjectRunId: run}
	var names []string
	for len(names) == 0 { // queries may lag by moments
		for recorded, err := range client.Scores.List(ctx, filter) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, recorded.GetScore().GetName())
		}
	}
	if len(names) != 1 || names[0] != "helpful" {
		t.Fatalf("the scores are %v", names)
	}
	groups := must(client.Scores.Query(ctx, &pb.QueryScoresRequest{Filter: filter}))(t)
	if len(groups) != 1 || groups[0].GetPassRate() != 0 || groups[0].GetCount() != 1 {
		t.Fatalf("the groups are %v", groups)
	}
}
