package lavant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason names why a call or a batch failed: an ErrorReason of the contract, without its prefix. It is an error, for
// errors.Is:
//
//	if errors.Is(err, lavant.ErrRunNotFound) { … }
type Reason string

// Error returns the name of the reason.
func (r Reason) Error() string { return "lavant: " + string(r) }

// Reasons that a server names. The contract says of each when it occurs and what to do.
const (
	ErrInvalidField       Reason = "INVALID_FIELD"
	ErrResumeTokenInvalid Reason = "RESUME_TOKEN_INVALID"
	ErrStoreEpochChanged  Reason = "STORE_EPOCH_CHANGED"
	ErrRunNotFound        Reason = "RUN_NOT_FOUND"
	ErrRunExists          Reason = "RUN_EXISTS"
	ErrRunSealed          Reason = "RUN_SEALED"
	ErrRunNotEnded        Reason = "RUN_NOT_ENDED"
	ErrConsumerBusy       Reason = "CONSUMER_BUSY"
	ErrStreamDisplaced    Reason = "STREAM_DISPLACED"
	ErrStaleAttempt       Reason = "STALE_ATTEMPT"
	ErrSlowConsumer       Reason = "SLOW_CONSUMER"
	ErrQuotaExceeded      Reason = "QUOTA_EXCEEDED"
	ErrProducerGap        Reason = "PRODUCER_GAP"
	ErrProducerFenced     Reason = "PRODUCER_FENCED"
	ErrProducerConflict   Reason = "PRODUCER_CONFLICT"
	ErrUnauthenticated    Reason = "UNAUTHENTICATED"
	ErrPermissionDenied   Reason = "PERMISSION_DENIED"
	ErrUnavailable        Reason = "UNAVAILABLE"
	ErrDataLoss           Reason = "DATA_LOSS"
	ErrRuleNotFound       Reason = "RULE_NOT_FOUND"
	ErrRuleExists         Reason = "RULE_EXISTS"
	ErrRuleChanged        Reason = "RULE_CHANGED"
	ErrBackfillUnderWay   Reason = "BACKFILL_UNDER_WAY"
	ErrSampleLost         Reason = "SAMPLE_LOST"
	ErrKeyNotFound        Reason = "KEY_NOT_FOUND"
)

// ErrClosed is the error of calls on a client, stream or producer that this process has closed.
var ErrClosed = errors.New("lavant: closed")

const errorDomain = "lavant.dev"

// Error is a failed call or a rejected batch. errors.Is compares it with a Reason, errors.As returns it.
type Error struct {
	// Reason that the server named; empty if no lavant server spoke, as when the connection failed.
	Reason Reason
	// Code is the status code of gRPC.
	Code codes.Code
	// Message describes the failure for people.
	Message string
	// RetryAfter is the delay that the server asks for; 0 if it asks for none.
	RetryAfter time.Duration
	// Metadata of the reason, such as run_id or limit.
	Metadata map[string]string
	// Violations of INVALID_FIELD: path and description of each field.
	Violations []*errdetails.BadRequest_FieldViolation

	status   *status.Status
	hasRetry bool
}

// Error returns the message with its reason, or else with its status code.
func (e *Error) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("lavant: %s: %s", string(e.Reason), e.Message)
	}
	return fmt.Sprintf("lavant: %s: %s", e.Code, e.Message)
}

// Is reports whether target is the error's Reason.
func (e *Error) Is(target error) bool {
	reason, ok := target.(Reason)
	return ok && reason == e.Reason
}

// GRPCStatus returns the status as it was received, for status.FromError.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Details returns the messages that came with the status, such as *lavantpb.ProducerFenced.
func (e *Error) Details() []any { return e.status.Details() }

// errorOf returns the Error of what a gRPC call returned; nil for nil, and io.EOF as it is.
func errorOf(err error) error {
	var failed *Error
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &failed) {
		return err
	}
	return fromStatus(status.Convert(err))
}

func fromProto(rejection *rpcstatus.Status) *Error { return fromStatus(status.FromProto(rejection)) }

func fromStatus(received *status.Status) *Error {
	e := &Error{Code: received.Code(), Message: received.Message(), status: received}
	for _, detail := range received.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain {
				e.Reason, e.Metadata = Reason(detail.GetReason()), detail.GetMetadata()
			}
		case *errdetails.RetryInfo:
			e.RetryAfter, e.hasRetry = detail.GetRetryDelay().AsDuration(), true
		case *errdetails.BadRequest:
			e.Violations = detail.GetFieldViolations()
		}
	}
	return e
}

// cut returns an error that means that the connection failed.
func cut(format string, arguments ...any) *Error {
	return fromStatus(status.Newf(codes.Unavailable, format, arguments...))
}

// Texts of INTERNAL and UNKNOWN where the transport failed, not the server. The last two are grpc-go's own, of a proxy
// that ended the call within a message, or without a status.
var cutTexts = []string{
	"RST_STREAM", "GOAWAY", "Stream removed", "Internal error from Core",
	"unexpected EOF", "server closed the stream without sending trailers",
}

// isCut reports whether a call failed with its connection, or the server asks to make it again: docs/protocol.md has
// the tables. It is not to be asked about calls that this side has cancelled.
func isCut(err *Error) bool {
	switch err.Reason {
	case ErrUnavailable, ErrSlowConsumer:
		return true
	case "":
	default:
		return false
	}
	switch err.Code {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.Internal, codes.Unknown:
		for _, text := range cutTexts {
			if strings.Contains(err.Message, text) {
				return true
			}
		}
	}
	return false
}

// isRetried reports whether a call or a batch is sent again after err: cut connections, and quotas that are free again
// after the delay that the server names.
func isRetried(err *Error) bool {
	return isCut(err) || err.Reason == ErrQuotaExceeded && err.hasRetry
}

// RunNotSucceededError is the outcome of a run that ended in another state than SUCCEEDED.
type RunNotSucceededError struct {
	RunID  string
	Result *RunFinished
}

// Error returns the state and the error of the run.
func (e *RunNotSucceededError) Error() string {
	state := strings.TrimPrefix(e.Result.GetState().String(), "RUN_STATE_")
	return fmt.Sprintf("lavant: run %s ended as %s: %s", e.RunID, state, e.Result.GetError().GetMessage())
}

// CancelledError is the cause of a producer's context after somebody has asked the run to stop. It is also a
// context.Canceled.
type CancelledError struct {
	// Message is the reason that was given to CancelRun; may be empty.
	Message string
}

// Error returns the reason of the request.
func (e *CancelledError) Error() string { return "lavant: cancellation requested: " + e.Message }

// Is reports whether target is context.Canceled.
func (e *CancelledError) Is(target error) bool { return target == context.Canceled }
