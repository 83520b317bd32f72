"""The AI SDK of Vercel, before it wrote the GenAI conventions."""

from lavant.server.otlp.vocabularies.vocabulary import Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

_MODEL_REQUEST = StepKind.STEP_KIND_MODEL_REQUEST
_AGENT = StepKind.STEP_KIND_AGENT

VERCEL = Vocabulary(
    name="vercel",
    attributes={
        Meaning.AGENT_NAME: ("ai.telemetry.functionId",),
        Meaning.MODEL: ("ai.response.model", "ai.model.id"),
        Meaning.CONVERSATION: ("ai.telemetry.metadata.sessionId", "ai.telemetry.metadata.threadId"),
        Meaning.INPUT: ("ai.prompt.messages", "ai.prompt", "ai.value", "ai.values"),
        Meaning.TEXT: ("ai.response.text", "ai.response.object"),
        Meaning.REASONING: ("ai.response.reasoning",),
        Meaning.TOOL_CALLS: ("ai.response.toolCalls",),
        Meaning.FINISH_REASON: ("ai.response.finishReason",),
        Meaning.TOOL_NAME: ("ai.toolCall.name",),
        Meaning.TOOL_CALL_ID: ("ai.toolCall.id",),
        Meaning.ARGUMENTS: ("ai.toolCall.args",),
        Meaning.RESULT: ("ai.toolCall.result",),
        Meaning.INPUT_TOKENS: ("ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens"),
        Meaning.OUTPUT_TOKENS: ("ai.usage.outputTokens", "ai.usage.completionTokens"),
        Meaning.CACHE_READ_TOKENS: ("ai.usage.inputTokenDetails.cacheReadTokens", "ai.usage.cachedInputTokens"),
        Meaning.CACHE_CREATION_TOKENS: ("ai.usage.inputTokenDetails.cacheWriteTokens",),
        Meaning.REASONING_TOKENS: ("ai.usage.outputTokenDetails.reasoningTokens", "ai.usage.reasoningTokens"),
    },
    kinds={
        "ai.operationId": {
            "ai.generatetext": _AGENT,
            "ai.streamtext": _AGENT,
            "ai.generateobject": _AGENT,
            "ai.streamobject": _AGENT,
            "ai.generatetext.dogenerate": _MODEL_REQUEST,
            "ai.streamtext.dostream": _MODEL_REQUEST,
            "ai.generateobject.dogenerate": _MODEL_REQUEST,
            "ai.streamobject.dostream": _MODEL_REQUEST,
            "ai.embed": StepKind.STEP_KIND_WORKFLOW,
            "ai.embedmany": StepKind.STEP_KIND_WORKFLOW,
            "ai.embed.doembed": _MODEL_REQUEST,
            "ai.embedmany.doembed": _MODEL_REQUEST,
            "ai.rerank": StepKind.STEP_KIND_WORKFLOW,
            "ai.rerank.dorerank": StepKind.STEP_KIND_RETRIEVAL,
            "ai.toolcall": StepKind.STEP_KIND_TOOL,
        },
    },
)
