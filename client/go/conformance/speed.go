package main

import (
	"time"

	lavant "lavant.dev/go"
)

// readFast reads a run without reporting its events, and returns how many there were and the seconds that it took.
func (d *driver) readFast(o *operation, c command) (object, error) {
	began, count := time.Now(), 0
	for _, err := range d.client.Runs.Read(o.ctx, c.Run, lavant.ReadOptions{}) {
		if err != nil {
			return nil, err
		}
		count++
	}
	return object{"events": count, "seconds": time.Since(began).Seconds()}, nil
}

// publishFast publishes a run of many events, and returns the seconds until all are durable.
func (d *driver) publishFast(o *operation, c command) (object, error) {
	began := time.Now()
	run, err := d.client.Runs.Start(o.ctx, "fast", lavant.StartOptions{RunID: c.Run})
	if err != nil {
		return nil, err
	}
	for range c.Count {
		if err := run.Custom(o.ctx, "note", 1); err != nil {
			return nil, err
		}
	}
	if _, err := run.Finish(o.ctx, nil); err != nil {
		return nil, err
	}
	return object{"seconds": time.Since(began).Seconds()}, nil
}
