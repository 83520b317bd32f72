package lavant

import pb "lavant.dev/go/lavantpb"

// Messages of the contract under short names. The package lavantpb has all of them.
type (
	Event        = pb.Event
	Run          = pb.Run
	RunFinished  = pb.RunFinished
	RunFilter    = pb.RunFilter
	RunSettings  = pb.RunSettings
	EventType    = pb.EventType
	RunState     = pb.RunState
	RunKind      = pb.RunKind
	StepKind     = pb.StepKind
	Role         = pb.Role
	TokenUsage   = pb.TokenUsage
	Score        = pb.Score
	BatchReceipt = pb.BatchReceipt
)

// StartPosition is where a stream without a resume token starts.
type StartPosition = pb.StartPosition

// StopPosition is where a stream ends.
type StopPosition = pb.StopPosition

// DeltaMode is how deltas of text, reasoning, tool arguments and tool output are sent.
type DeltaMode = pb.DeltaMode

// Values of the settings of a stream. The zero values are StartBeginning, StopRunFinished and DeltasAll.
const (
	StartBeginning  = pb.StartPosition_START_POSITION_BEGINNING
	StartNow        = pb.StartPosition_START_POSITION_NOW
	StopRunFinished = pb.StopPosition_STOP_POSITION_RUN_FINISHED
	StopHead        = pb.StopPosition_STOP_POSITION_HEAD
	DeltasAll       = pb.DeltaMode_DELTA_MODE_ALL
	DeltasMerged    = pb.DeltaMode_DELTA_MODE_MERGED
	DeltasNone      = pb.DeltaMode_DELTA_MODE_NONE
)

// Roles of the authors of messages.
const (
	RoleAssistant = pb.Role_ROLE_ASSISTANT
	RoleUser      = pb.Role_ROLE_USER
	RoleSystem    = pb.Role_ROLE_SYSTEM
	RoleTool      = pb.Role_ROLE_TOOL
)

// Kinds of work of steps.
const (
	StepAgent        = pb.StepKind_STEP_KIND_AGENT
	StepModelRequest = pb.StepKind_STEP_KIND_MODEL_REQUEST
	StepTool         = pb.StepKind_STEP_KIND_TOOL
	StepWorkflow     = pb.StepKind_STEP_KIND_WORKFLOW
	StepRetrieval    = pb.StepKind_STEP_KIND_RETRIEVAL
	StepGuardrail    = pb.StepKind_STEP_KIND_GUARDRAIL
	StepEvaluator    = pb.StepKind_STEP_KIND_EVALUATOR
)

// HasEnded reports whether a run is in a terminal state.
func HasEnded(run *Run) bool { return run.GetState() >= pb.RunState_RUN_STATE_SUCCEEDED }
