"""Claude Code: its log events and, with tracing on, its spans."""

from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

CLAUDE_CODE = Vocabulary(
    name="claude-code",
    prefix="claude_code.",
    attributes={
        Meaning.CONVERSATION: ("session.id",),
        Meaning.TURN: ("prompt.id",),
        Meaning.REQUEST: ("request_id", "client_request_id"),
        Meaning.AGENT_NAME: ("agent.name",),
        Meaning.VERSION: ("app.version",),
        Meaning.MODEL: ("model",),
        Meaning.INPUT: ("prompt", "user_prompt"),
        Meaning.TEXT: ("response", "response.model_output"),
        Meaning.FINISH_REASON: ("stop_reason",),
        Meaning.TOOL_NAME: ("tool_name",),
        Meaning.TOOL_CALL_ID: ("tool_use_id",),
        Meaning.ARGUMENTS: ("tool_input", "tool_parameters", "full_command", "file_path"),
        Meaning.SUCCESS: ("success",),
        Meaning.DECISION: ("decision",),
        Meaning.DECIDER: ("source",),
        Meaning.STATUS_CODE: ("status_code",),
        Meaning.ATTEMPT: ("attempt",),
        Meaning.DURATION_MS: ("duration_ms",),
        Meaning.UNCACHED_INPUT_TOKENS: ("input_tokens",),
        Meaning.OUTPUT_TOKENS: ("output_tokens",),
        Meaning.CACHE_READ_TOKENS: ("cache_read_tokens",),
        Meaning.CACHE_CREATION_TOKENS: ("cache_creation_tokens",),
        Meaning.COST: ("cost_usd",),
        Meaning.ERROR_MESSAGE: ("error",),
        Meaning.ERROR_TYPE: ("error_type", "error_class"),
    },
    span_names={
        "claude_code.interaction": StepKind.STEP_KIND_AGENT,
        "claude_code.llm_request": StepKind.STEP_KIND_MODEL_REQUEST,
        "claude_code.tool": StepKind.STEP_KIND_TOOL,
        # Parts of a tool's span, which has the call.
        "claude_code.tool.execution": StepKind.STEP_KIND_WORKFLOW,
        "claude_code.tool.blocked_on_user": StepKind.STEP_KIND_GUARDRAIL,
        "claude_code.hook": StepKind.STEP_KIND_GUARDRAIL,
    },
    events={
        "claude_code.user_prompt": EventKind.QUESTION,
        "claude_code.assistant_response": EventKind.MODEL_REQUEST,
        "claude_code.api_request": EventKind.MODEL_REQUEST,
        "claude_code.api_error": EventKind.MODEL_ERROR,
        "claude_code.api_refusal": EventKind.MODEL_ERROR,
        "claude_code.tool_decision": EventKind.DECISION,
        "claude_code.tool_result": EventKind.TOOL,
    },
)
