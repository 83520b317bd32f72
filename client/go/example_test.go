package lavant_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	lavant "lavant.dev/go"
)

func Example() {
	ctx := context.Background()
	client, err := lavant.NewClient(lavant.Config{}) // LAVANT_TARGET, or localhost:7447
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	run, err := client.Runs.Start(ctx, "weather-agent", lavant.StartOptions{Input: map[string]string{"city": "Oslo"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, chunk := range []string{"It ", "is ", "cold."} {
		if err := run.Text(ctx, chunk); err != nil {
			log.Fatal(err)
		}
	}
	run.Output = map[string]string{"answer": "cold"}
	if _, err := run.Finish(ctx, nil); err != nil {
		log.Fatal(err)
	}

	text, err := client.Runs.Stream(run.ID(), lavant.ReadOptions{}).Text(ctx)
	fmt.Println(text, err)
	// Output: It is cold. <nil>
}

func ExampleRuns_Read() {
	ctx := context.Background()
	client, err := lavant.NewClient(lavant.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	run := exampleRun(ctx, client)

	for event, err := range client.Runs.Read(ctx, run, lavant.ReadOptions{Deltas: lavant.DeltasNone}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %T\n", event.GetSequence(), event.GetPayload())
	}
	// Output:
	// 1 *lavantpb.Event_RunStarted
	// 2 *lavantpb.Event_MessageStarted
	// 4 *lavantpb.Event_MessageFinished
	// 5 *lavantpb.Event_RunFinished
}

func ExampleStream_Position() {
	ctx := context.Background()
	client, err := lavant.NewClient(lavant.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	run := exampleRun(ctx, client)

	stored := ""
	stream := client.Runs.Stream(run, lavant.ReadOptions{Consumer: "alice@example.org"})
	for event, err := range stream.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("before the restart:", event.GetSequence())
		stored = stream.Position() // after the event was handled
		if event.GetSequence() == 3 {
			break
		}
	}

	options := lavant.ReadOptions{Consumer: "alice@example.org", ResumeToken: stored}
	for event, err := range client.Runs.Read(ctx, run, options) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("after the restart:", event.GetSequence())
	}
	// Output:
	// before the restart: 1
	// before the restart: 2
	// before the restart: 3
	// after the restart: 4
	// after the restart: 5
}

func ExampleRunProducer() {
	ctx := context.Background()
	client, err := lavant.NewClient(lavant.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	answer := func(ctx context.Context, run *lavant.RunProducer) error {
		step, err := run.Step(ctx, "gpt-5", lavant.StepOptions{Kind: lavant.StepModelRequest})
		if err != nil {
			return err
		}
		tool, err := step.Tool(ctx, "search_web", map[string]string{"q": "Oslo"}, "call-1")
		if err != nil {
			return err
		}
		tool.Result = []string{"-3 °C"}
		if err := errors.Join(tool.End(nil), step.Text(ctx, "It is cold."), step.End(nil)); err != nil {
			return err
		}
		return run.Progress(ctx, "sources", 1, 1)
	}
	run, err := client.Runs.Start(ctx, "weather-agent", lavant.StartOptions{})
	if err != nil {
		log.Fatal(err)
	}
	work, stop := run.Context(ctx) // ends when somebody asks the run to stop
	defer stop()
	err = answer(work, run)
	if work.Err() != nil {
		err = context.Cause(work)
	}
	if _, err := run.Finish(ctx, err); err != nil {
		log.Fatal(err)
	}

	for call, err := range client.Runs.Stream(run.ID(), lavant.ReadOptions{}).ToolCalls(ctx) {
		fmt.Println(call.Call.GetToolName(), call.Call.GetArgumentsJson(), call.Result.GetResultJson(), err)
	}
	// Output: search_web {"q":"Oslo"} ["-3 °C"] <nil>
}

func ExampleError() {
	ctx := context.Background()
	client, err := lavant.NewClient(lavant.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	_, err = client.Runs.Get(ctx, "nowhere")
	var failed *lavant.Error
	if errors.Is(err, lavant.ErrRunNotFound) && errors.As(err, &failed) {
		fmt.Println(failed.Code, failed.Metadata["run_id"])
	}
	// Output: NotFound nowhere
}

// exampleRun records a short run and returns its ID.
func exampleRun(ctx context.Context, client *lavant.Client) string {
	run, err := client.Runs.Start(ctx, "weather-agent", lavant.StartOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := run.Text(ctx, "It is cold."); err != nil {
		log.Fatal(err)
	}
	if _, err := run.Finish(ctx, nil); err != nil {
		log.Fatal(err)
	}
	return run.ID()
}
