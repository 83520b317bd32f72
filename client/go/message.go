package lavant

import (
	"context"
	"errors"
	"strings"
	"sync"

	pb "lavant.dev/go/lavantpb"
)

// Message is a message of a model, a person or a tool: deltas while it is open, and all of it at its end, so that
// readers may skip the deltas. End it with End. Text that exceeds the size of an event continues in further messages.
type Message struct {
	// FinishReason is why the author stopped, as the provider says.
	FinishReason string
	// Usage of this message. Nil: not known.
	Usage *TokenUsage

	scope scope
	role  Role
	model string

	mu     sync.Mutex
	id     string
	open   bool
	parts  []*pb.MessagePart
	kind   partKind
	text   strings.Builder // of the open part
	length int             // of the whole message
}

type partKind int

const (
	noPart partKind = iota
	textPart
	reasoningPart
)

func (m *Message) start(ctx context.Context) error {
	m.id, m.open, m.parts, m.kind, m.length = newID(), true, nil, noPart, 0
	m.text.Reset()
	started := &pb.MessageStarted{MessageId: m.id, Role: m.role, Model: m.model}
	return m.scope.Publish(ctx, &Event{Payload: &pb.Event_MessageStarted{MessageStarted: started}})
}

// Text appends text.
func (m *Message) Text(ctx context.Context, text string) error { return m.append(ctx, textPart, text) }

// Reasoning appends reasoning of a model.
func (m *Message) Reasoning(ctx context.Context, text string) error {
	return m.append(ctx, reasoningPart, text)
}

func (m *Message) append(ctx context.Context, kind partKind, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.open {
		return errors.New("lavant: the message has ended")
	}
	for _, piece := range pieces(text) {
		if m.length > 0 && m.length+len(piece) > longText {
			if err := m.finish(); err != nil {
				return err
			}
			if err := m.start(ctx); err != nil {
				return err
			}
		}
		if kind != m.kind {
			m.closePart()
			m.kind = kind
		}
		event := &Event{}
		index := int32(len(m.parts))
		if kind == textPart {
			event.Payload = &pb.Event_TextDelta{TextDelta: &pb.TextDelta{MessageId: m.id, PartIndex: index, Text: piece}}
		} else {
			event.Payload = &pb.Event_ReasoningDelta{ReasoningDelta: &pb.ReasoningDelta{MessageId: m.id, PartIndex: index, Text: piece}}
		}
		if err := m.scope.Publish(ctx, event); err != nil {
			return err
		}
		m.text.WriteString(piece)
		m.length += len(piece)
	}
	return nil
}

// End finishes the message. Only the first call has an effect.
func (m *Message) End() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.finish()
}

func (m *Message) finish() error {
	if !m.open {
		return nil
	}
	m.open = false
	m.closePart()
	finished := &pb.MessageFinished{
		MessageId: m.id, Role: m.role, Parts: m.parts, FinishReason: m.FinishReason, Usage: m.Usage,
	}
	return m.scope.close(&Event{Payload: &pb.Event_MessageFinished{MessageFinished: finished}})
}

func (m *Message) closePart() {
	switch m.kind {
	case textPart:
		m.parts = append(m.parts, &pb.MessagePart{Content: &pb.MessagePart_Text{Text: m.text.String()}})
	case reasoningPart:
		m.parts = append(m.parts, &pb.MessagePart{Content: &pb.MessagePart_Reasoning{Reasoning: m.text.String()}})
	}
	m.kind = noPart
	m.text.Reset()
}
