// Command conformance is the driver of this client for the suite in tests/conformance, whose README defines the commands:
// JSON lines on the standard input, what happens as JSON lines on the standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	lavant "lavant.dev/go"
)

// object is a line's fields.
type object map[string]any

// command has the fields of all commands.
type command struct {
	ID       int             `json:"id"`
	Of       int             `json:"of"`
	Do       string          `json:"do"`
	Run      string          `json:"run"`
	Request  json.RawMessage `json:"request"`
	Types    []string        `json:"types"`
	PageSize int32           `json:"page_size"`
	Reason   string          `json:"reason"`
	Timeout  float64         `json:"timeout"`

	Targets   []string `json:"targets"`
	TokenFile string   `json:"token_file"`
	CA        string   `json:"ca"`
	Deadline  float64  `json:"deadline"`

	Consumer          string  `json:"consumer"`
	ResumeToken       string  `json:"resume_token"`
	TakeOver          bool    `json:"take_over"`
	Start             string  `json:"start"`
	Stop              string  `json:"stop"`
	Deltas            string  `json:"deltas"`
	IdleTimeout       float64 `json:"idle_timeout"`
	HeartbeatInterval float64 `json:"heartbeat_interval"`
	WaitForRun        bool    `json:"wait_for_run"`
	Hold              bool    `json:"hold"`

	Producer     string            `json:"producer"`
	Epoch        int64             `json:"epoch"`
	Create       json.RawMessage   `json:"create"`
	Events       []json.RawMessage `json:"events"`
	Tag          any               `json:"tag"`
	State        string            `json:"state"`
	ErrorMessage string            `json:"error_message"`

	Name      string `json:"name"`
	Value     any    `json:"value"`
	Count     int    `json:"count"`
	Evaluator string `json:"evaluator"`
}

// operation is one command that runs, and the commands about it.
type operation struct {
	id       int
	ctx      context.Context
	cancel   context.CancelFunc
	commands chan command
	next     chan struct{}

	mu       sync.Mutex
	position string
}

func (o *operation) setPosition(position string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.position = position
}

// sayHandled reports a line of an event, which is handled with it: nobody sees the line with the position before.
func (d *driver) sayHandled(o *operation, line object, position string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.say(o.id, line)
	o.position = position
}

// driver has the client, and the operations that run.
type driver struct {
	client     *lavant.Client
	operations map[int]*operation
	running    sync.WaitGroup

	mu  sync.Mutex
	out *json.Encoder
}

// handlers are the commands that begin an operation, and return the fields of its end.
var handlers = map[string]func(*driver, *operation, command) (object, error){
	"read":         (*driver).read,
	"publish":      (*driver).publish,
	"create_run":   (*driver).createRun,
	"get_run":      (*driver).getRun,
	"cancel_run":   (*driver).cancelRun,
	"wait_run":     (*driver).waitRun,
	"list_runs":    (*driver).listRuns,
	"list_events":  (*driver).listEvents,
	"watch_runs":   (*driver).watchRuns,
	"text":         (*driver).text,
	"result":       (*driver).result,
	"score":        (*driver).score,
	"read_fast":    (*driver).readFast,
	"publish_fast": (*driver).publishFast,
}

func main() {
	d := &driver{operations: make(map[int]*operation), out: json.NewEncoder(os.Stdout)}
	d.out.SetEscapeHTML(false)
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			break
		}
		var c command
		if err := json.Unmarshal(line, &c); err != nil {
			panic(err)
		}
		d.accept(c)
	}
	for _, operation := range d.operations {
		operation.cancel()
	}
	d.running.Wait()
	if d.client != nil {
		d.client.Close()
	}
}

func (d *driver) accept(c command) {
	if c.Of != 0 {
		d.about(d.operations[c.Of], c)
		return
	}
	if c.Do == "connect" {
		d.end(c.ID, object{}, d.connect(c))
		return
	}
	handle := handlers[c.Do]
	if handle == nil {
		d.say(c.ID, object{"unsupported": true})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &operation{id: c.ID, ctx: ctx, cancel: cancel, commands: make(chan command, 10_000), next: make(chan struct{}, 10_000)}
	d.operations[c.ID] = o
	d.running.Add(1)
	go func() {
		defer d.running.Done()
		done, err := handle(d, o, c)
		if ctx.Err() != nil {
			done, err = object{"reason": "CANCELLED"}, nil
		}
		d.end(c.ID, done, err)
	}()
}

func (d *driver) about(o *operation, c command) {
	switch c.Do {
	case "next":
		o.next <- struct{}{}
	case "position":
		o.mu.Lock()
		defer o.mu.Unlock()
		d.say(o.id, object{"position": o.position})
	case "cancel":
		o.cancel()
	default:
		o.commands <- c
	}
}

func (d *driver) say(id int, fields object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fields["id"] = id
	if err := d.out.Encode(fields); err != nil {
		panic(err)
	}
}

func (d *driver) end(id int, done object, err error) {
	if err == nil {
		d.say(id, object{"done": done})
		return
	}
	described := object{"reason": "", "code": "", "message": err.Error()}
	var failed *lavant.Error
	if errors.As(err, &failed) {
		described["reason"] = string(failed.Reason)
		described["code"] = code.Code(failed.Code).String()
	}
	d.say(id, object{"error": described})
}

// asJSON returns a message as proto3 JSON.
func asJSON(message proto.Message) json.RawMessage {
	text, err := protojson.Marshal(message)
	if err != nil {
		panic(err)
	}
	return text
}

// parse reads proto3 JSON into a message; nothing from an absent field.
func parse[Message proto.Message](text json.RawMessage, message Message) (Message, error) {
	if len(text) == 0 {
		return message, nil
	}
	return message, protojson.Unmarshal(text, message)
}
