package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

func (d *driver) publish(o *operation, c command) (object, error) {
	run, err := d.producer(o, c)
	if err != nil {
		return nil, err
	}
	d.say(o.id, object{"ready": true})
	work, stop := run.Context(o.ctx)
	defer stop()
	defer context.AfterFunc(work, func() {
		if context.Cause(work) != context.Canceled {
			d.say(o.id, object{"cancel_requested": run.CancelReason()})
		}
	})()
	for {
		select {
		case <-o.ctx.Done():
			run.Abandon()
			return nil, o.ctx.Err()
		case c := <-o.commands:
			done, err := d.carryOut(o, run, c)
			if done != nil || err != nil {
				return done, err
			}
		}
	}
}

func (d *driver) producer(o *operation, c command) (*lavant.RunProducer, error) {
	options := lavant.ProducerOptions{ID: c.Producer, Epoch: c.Epoch}
	if len(c.Create) == 0 {
		return d.client.Runs.Continue(c.Run, options)
	}
	settings, err := parse(c.Create, &lavant.RunSettings{})
	if err != nil {
		return nil, err
	}
	return d.client.Runs.Start(o.ctx, settings.GetName(), lavant.StartOptions{
		RunID:           c.Run,
		Kind:            settings.GetKind(),
		Labels:          settings.GetLabels(),
		ParentRunID:     settings.GetParentRunId(),
		ConversationID:  settings.GetConversationId(),
		ProducerTimeout: settings.GetProducerTimeout().AsDuration(),
		Producer:        options,
	})
}

func (d *driver) carryOut(o *operation, run *lavant.RunProducer, c command) (object, error) {
	switch c.Do {
	case "send":
		for _, text := range c.Events {
			event, err := parse(text, &lavant.Event{})
			if err == nil {
				err = run.Publish(o.ctx, event)
			}
			if err != nil {
				return nil, err
			}
		}
		d.say(o.id, object{"queued": len(c.Events)})
	case "flush":
		receipt, err := run.Flush(o.ctx)
		if err != nil {
			return nil, err
		}
		d.say(o.id, object{"flushed": strconv.FormatInt(receipt.GetLastProducerSequence(), 10), "tag": c.Tag})
	case "finish":
		receipt, err := run.Finish(o.ctx, map[string]error{
			"FAILED":    errors.New(c.ErrorMessage),
			"CANCELLED": &lavant.CancelledError{Message: c.ErrorMessage},
		}[c.State])
		if err != nil {
			return nil, err
		}
		return object{
			"last_producer_sequence": strconv.FormatInt(receipt.GetLastProducerSequence(), 10),
			"last_sequence":          strconv.FormatInt(receipt.GetLastSequence(), 10),
		}, nil
	default:
		return nil, fmt.Errorf("no command of a publish: %s", c.Do)
	}
	return nil, nil
}

func (d *driver) createRun(o *operation, c command) (object, error) {
	request, err := parse(c.Request, &pb.CreateRunRequest{})
	if err != nil {
		return nil, err
	}
	run, err := d.client.Runs.Create(o.ctx, request.GetRunId(), request.GetSettings())
	return object{"run": asJSON(run)}, err
}

func (d *driver) getRun(o *operation, c command) (object, error) {
	run, err := d.client.Runs.Get(o.ctx, c.Run)
	return object{"run": asJSON(run)}, err
}

func (d *driver) cancelRun(o *operation, c command) (object, error) {
	run, err := d.client.Runs.Cancel(o.ctx, c.Run, c.Reason)
	return object{"run": asJSON(run)}, err
}

func (d *driver) waitRun(o *operation, c command) (object, error) {
	ctx := o.ctx
	if c.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, seconds(c.Timeout))
		defer cancel()
		ctx = limited
	}
	run, err := d.client.Runs.Wait(ctx, c.Run)
	return object{"run": asJSON(run)}, err
}

func (d *driver) listRuns(o *operation, c command) (object, error) {
	request, err := parse(c.Request, &pb.ListRunsRequest{})
	if err != nil {
		return nil, err
	}
	runs := []json.RawMessage{}
	for run, err := range d.client.Runs.ListPages(o.ctx, request) {
		if err != nil {
			return nil, err
		}
		runs = append(runs, asJSON(run))
	}
	return object{"runs": runs}, nil
}

func (d *driver) watchRuns(o *operation, c command) (object, error) {
	request, err := parse(c.Request, &pb.WatchRunsRequest{})
	if err != nil {
		return nil, err
	}
	for change, err := range d.client.Runs.Watch(o.ctx, request.GetFilter(), "") {
		if err != nil {
			return nil, err
		}
		switch change.Type {
		case lavant.RunChanged:
			d.say(o.id, object{"changed": asJSON(change.Run)})
		case lavant.RunLeft:
			d.say(o.id, object{"left": change.RunID})
		case lavant.RunDeleted:
			d.say(o.id, object{"deleted": change.RunID})
		case lavant.WatchCaughtUp:
			d.say(o.id, object{"caught_up": true})
		}
	}
	return nil, nil
}

func (d *driver) score(o *operation, c command) (object, error) {
	var score *lavant.Score
	switch value := c.Value.(type) {
	case bool:
		score = lavant.Passed(c.Name, value)
	case float64:
		score = lavant.Number(c.Name, value)
	case string:
		score = lavant.Label(c.Name, value)
	default:
		return nil, fmt.Errorf("no value of a score: %v", value)
	}
	score.Evaluator = &pb.Evaluator{Name: c.Evaluator}
	_, err := d.client.Scores.Record(o.ctx, c.Run, score, lavant.ScoreOptions{})
	return object{}, err
}
