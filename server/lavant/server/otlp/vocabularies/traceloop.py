"""OpenLLMetry, as Traceloop's instrumentations write it."""

from lavant.server.otlp.vocabularies.vocabulary import Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

TRACELOOP = Vocabulary(
    name="traceloop",
    attributes={
        Meaning.AGENT_NAME: ("traceloop.workflow.name",),
        Meaning.NAME: ("traceloop.entity.name",),
        Meaning.TOOL_NAME: ("traceloop.entity.name",),
        Meaning.VERSION: ("traceloop.entity.version",),
        Meaning.CONVERSATION: (
            "traceloop.association.properties.session_id",
            "traceloop.association.properties.conversation_id",
            "traceloop.association.properties.thread_id",
        ),
        Meaning.INPUT: ("traceloop.entity.input",),
        Meaning.OUTPUT: ("traceloop.entity.output",),
        Meaning.FINISH_REASON: ("gen_ai.response.finish_reason", "llm.response.finish_reason"),
        Meaning.CACHE_READ_TOKENS: ("gen_ai.usage.cache_read_input_tokens",),
        Meaning.CACHE_CREATION_TOKENS: ("gen_ai.usage.cache_creation_input_tokens",),
        Meaning.REASONING_TOKENS: ("gen_ai.usage.reasoning_tokens", "llm.usage.reasoning_tokens"),
    },
    lists={"gen_ai.prompt.": Meaning.INPUT, "gen_ai.completion.": Meaning.MESSAGES},
    kinds={
        "traceloop.span.kind": {
            "workflow": StepKind.STEP_KIND_WORKFLOW,
            "task": StepKind.STEP_KIND_WORKFLOW,
            "agent": StepKind.STEP_KIND_AGENT,
            "tool": StepKind.STEP_KIND_TOOL,
        },
        "llm.request.type": {
            "chat": StepKind.STEP_KIND_MODEL_REQUEST,
            "completion": StepKind.STEP_KIND_MODEL_REQUEST,
            "embedding": StepKind.STEP_KIND_MODEL_REQUEST,
            "rerank": StepKind.STEP_KIND_RETRIEVAL,
        },
    },
)
