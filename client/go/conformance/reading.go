package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"strings"
	"time"

	lavant "lavant.dev/go"
	pb "lavant.dev/go/lavantpb"
)

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }

func (d *driver) connect(c command) (err error) {
	config := lavant.Config{Targets: c.Targets, Timeout: 10 * time.Second}
	if c.Deadline > 0 {
		config.Timeout = seconds(c.Deadline)
	}
	if c.TokenFile != "" {
		config.Token = func(context.Context) (string, error) {
			text, err := os.ReadFile(c.TokenFile)
			return strings.TrimSpace(string(text)), err
		}
	}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
		config.TLS = &tls.Config{RootCAs: roots}
	}
	d.client, err = lavant.NewClient(config)
	return err
}

func types(names []string) (found []lavant.EventType) {
	for _, name := range names {
		found = append(found, lavant.EventType(pb.EventType_value["EVENT_TYPE_"+name]))
	}
	return found
}

func (d *driver) read(o *operation, c command) (object, error) {
	stream := d.client.Runs.Stream(c.Run, lavant.ReadOptions{
		Consumer:          c.Consumer,
		ResumeToken:       c.ResumeToken,
		TakeOver:          c.TakeOver,
		Start:             lavant.StartPosition(pb.StartPosition_value["START_POSITION_"+strings.ToUpper(c.Start)]),
		Stop:              lavant.StopPosition(pb.StopPosition_value["STOP_POSITION_"+strings.ToUpper(c.Stop)]),
		Types:             types(c.Types),
		Deltas:            lavant.DeltaMode(pb.DeltaMode_value["DELTA_MODE_"+strings.ToUpper(c.Deltas)]),
		IdleTimeout:       seconds(c.IdleTimeout),
		HeartbeatInterval: seconds(c.HeartbeatInterval),
		WaitForRun:        c.WaitForRun,
	})
	o.setPosition(c.ResumeToken)
	fence := int64(0)
	for event, err := range stream.Events(o.ctx) {
		if err != nil {
			return nil, err
		}
		if stream.Fence() != fence {
			fence = stream.Fence()
			d.say(o.id, object{"opened": object{"fence": fence}})
		}
		line := object{"event": asJSON(event)}
		if !c.Hold {
			d.sayHandled(o, line, stream.Position())
			continue
		}
		d.say(o.id, line)
		select {
		case <-o.next:
		case <-o.ctx.Done():
			return nil, o.ctx.Err()
		}
		o.setPosition(stream.Position())
	}
	o.setPosition(stream.Position())
	reason := strings.TrimPrefix(stream.EndReason().String(), "STREAM_END_REASON_")
	return object{"reason": reason, "resume_token": stream.Position()}, nil
}

func (d *driver) listEvents(o *operation, c command) (object, error) {
	request := &pb.ListEventsRequest{RunId: c.Run, Types: types(c.Types)}
	if c.PageSize > 0 {
		request.PageSize = &c.PageSize
	}
	events, token := []json.RawMessage{}, ""
	for page, err := range d.client.Runs.EventPages(o.ctx, request) {
		if err != nil {
			return nil, err
		}
		for _, event := range page.GetEvents() {
			events = append(events, asJSON(event))
		}
		token = page.GetResumeToken()
	}
	return object{"events": events, "resume_token": token}, nil
}

func (d *driver) text(o *operation, c command) (object, error) {
	text, err := d.client.Runs.Stream(c.Run, lavant.ReadOptions{}).Text(o.ctx)
	return object{"text": text}, err
}

func (d *driver) result(o *operation, c command) (object, error) {
	result, err := d.client.Runs.Stream(c.Run, lavant.ReadOptions{}).Result(o.ctx)
	if err != nil || result.GetOutputJson() == "" {
		return object{"json": nil}, err
	}
	return object{"json": json.RawMessage(result.GetOutputJson())}, nil
}
