package lavant_test

import (
	"errors"
	"strings"
	"testing"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

func TestBlocks_WholeConversation_IsReadAsItWasPublished(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "weather-agent", lavant.StartOptions{Input: map[string]string{"city": "Oslo"}}))(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	question := must(run.Message(ctx, lavant.RoleUser, ""))(t)
	check(question.Text(ctx, "How is it?"))
	check(question.End())
	check(run.Reasoning(ctx, "I have to look."))
	check(run.Text(ctx, "It "))
	tool := must(run.Tool(ctx, "search_web", map[string]string{"q": "Oslo"}, "call-1"))(t)
	check(tool.Output(ctx, "searching"))
	tool.Result = []string{"-3 °C"}
	check(tool.End(nil))
	step := must(run.Step(ctx, "think", lavant.StepOptions{Kind: lavant.StepModelRequest, Input: 1}))(t)
	check(step.Text(ctx, "is "))
	failing := must(step.Tool(ctx, "broken", nil, ""))(t)
	check(failing.End(errors.New("out of order")))
	step.Output = "done"
	check(step.End(nil))
	check(step.End(nil))
	nested := must(run.Step(ctx, "helper", lavant.StepOptions{Kind: lavant.StepAgent}))(t)
	check(nested.Text(ctx, "nobody reads this"))
	check(nested.End(nil))
	check(run.Progress(ctx, "sources", 1, -1))
	check(run.ReportError(ctx, errors.New("slow")))
	check(run.State(ctx, "", map[string]int{"n": 1}))
	check(run.Custom(ctx, "weather.measured", -3))
	check(run.Artifact(ctx, &pb.ArtifactUpdated{Name: "a.txt", Content: &pb.ArtifactUpdated_Data{Data: []byte("x")}}))
	check(run.Text(ctx, strings.Repeat("cold é ", 60_000)))
	run.Output = map[string]string{"answer": "cold"}
	run.Usage = &lavant.TokenUsage{InputTokens: 812}
	must(run.Finish(ctx, nil))(t)

	text := must(client.Runs.Stream(run.ID(), lavant.ReadOptions{}).Text(ctx))(t)
	if text != "It is "+strings.Repeat("cold é ", 60_000) {
		t.Fatalf("the text has %d bytes: %.40q", len(text), text)
	}
	short := must(client.Runs.Stream(run.ID(), lavant.ReadOptions{Deltas: lavant.DeltasNone}).Text(ctx))(t)
	if short != text {
		t.Fatalf("without deltas the text has %d bytes", len(short))
	}
	var output struct{ Answer string }
	check(client.Runs.Stream(run.ID(), lavant.ReadOptions{}).Output(ctx, &output))
	if output.Answer != "cold" {
		t.Fatalf("the output is %v", output)
	}
	var outcomes []string
	for call, err := range client.Runs.Stream(run.ID(), lavant.ReadOptions{}).ToolCalls(ctx) {
		check(err)
		outcomes = append(outcomes, call.Call.GetToolName()+" "+call.Result.GetOutcome().String()+" "+call.Result.GetResultJson())
	}
	expected := `search_web TOOL_CALL_OUTCOME_SUCCEEDED ["-3 °C"],broken TOOL_CALL_OUTCOME_FAILED `
	if joined := strings.Join(outcomes, ","); joined != expected {
		t.Fatalf("the tool calls are %s", joined)
	}
}

func TestResult_FailedRun_IsAnError(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "weather-agent", lavant.StartOptions{}))(t)
	must(run.Finish(ctx, errors.New("no such city")))(t)
	result, err := client.Runs.Stream(run.ID(), lavant.ReadOptions{}).Result(ctx)
	var failed *lavant.RunNotSucceededError
	if !errors.As(err, &failed) || result.GetError().GetMessage() != "no such city" {
		t.Fatalf("%v, %v", result, err)
	}
	if !strings.Contains(err.Error(), "ended as FAILED: no such city") {
		t.Fatal(err)
	}
}

func TestText_StepThatIsTriedAgain_HasTheLastAttempt(t *testing.T) {
	client := newClient(t, lavant.Config{})
	ctx := limited(t)
	run := must(client.Runs.Start(ctx, "weather-agent", lavant.StartOptions{}))(t)
	id := ""
	for attempt, text := range []string{"It is warm.", "It is cold."} {
		step := must(run.Step(ctx, "look", lavant.StepOptions{ID: id, Attempt: int32(attempt + 1)}))(t)
		id = step.ID()
		if err := step.Text(ctx, text); err != nil {
			t.Fatal(err)
		}
		if err := step.End(nil); err != nil {
			t.Fatal(err)
		}
	}
	must(run.Finish(ctx, nil))(t)
	if text := must(client.Runs.Stream(run.ID(), lavant.ReadOptions{}).Text(ctx))(t); text != "It is cold." {
		t.Fatalf("the text is %q", text)
	}
}
