"""The current GenAI semantic conventions of OpenTelemetry, and the names that they replaced."""

from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

_MODEL_REQUEST = StepKind.STEP_KIND_MODEL_REQUEST

GENAI = Vocabulary(
    name="genai",
    attributes={
        Meaning.AGENT_NAME: ("gen_ai.agent.name", "gen_ai.workflow.name"),
        Meaning.VERSION: ("gen_ai.agent.version",),
        Meaning.MODEL: ("gen_ai.response.model", "gen_ai.request.model"),
        Meaning.CONVERSATION: ("gen_ai.conversation.id",),
        Meaning.INPUT: ("gen_ai.input.messages", "gen_ai.prompt", "gen_ai.retrieval.query.text"),
        Meaning.INSTRUCTIONS: ("gen_ai.system_instructions",),
        Meaning.MESSAGES: ("gen_ai.output.messages", "gen_ai.completion"),
        Meaning.OUTPUT: ("gen_ai.retrieval.documents",),
        Meaning.FINISH_REASON: ("gen_ai.response.finish_reasons",),
        Meaning.TOOL_NAME: ("gen_ai.tool.name",),
        Meaning.TOOL_CALL_ID: ("gen_ai.tool.call.id",),
        Meaning.ARGUMENTS: ("gen_ai.tool.call.arguments",),
        Meaning.RESULT: ("gen_ai.tool.call.result",),
        Meaning.INPUT_TOKENS: ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        Meaning.OUTPUT_TOKENS: ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        Meaning.CACHE_READ_TOKENS: ("gen_ai.usage.cache_read.input_tokens",),
        Meaning.CACHE_CREATION_TOKENS: ("gen_ai.usage.cache_creation.input_tokens",),
        Meaning.REASONING_TOKENS: ("gen_ai.usage.reasoning.output_tokens",),
        Meaning.SCORE_NAME: ("gen_ai.evaluation.name",),
        Meaning.SCORE_VALUE: ("gen_ai.evaluation.score.value",),
        Meaning.SCORE_LABEL: ("gen_ai.evaluation.score.label",),
        Meaning.SCORE_EXPLANATION: ("gen_ai.evaluation.explanation",),
        Meaning.EVALUATOR_VERSION: ("gen_ai.evaluation.evaluator.version",),
    },
    kinds={
        "gen_ai.operation.name": {
            "chat": _MODEL_REQUEST,
            "text_completion": _MODEL_REQUEST,
            "generate_content": _MODEL_REQUEST,
            "embeddings": _MODEL_REQUEST,
            "retrieval": StepKind.STEP_KIND_RETRIEVAL,
            "execute_tool": StepKind.STEP_KIND_TOOL,
            "invoke_agent": StepKind.STEP_KIND_AGENT,
            "rerank": StepKind.STEP_KIND_RETRIEVAL,
            "agent_step": StepKind.STEP_KIND_WORKFLOW,
            "create_agent": StepKind.STEP_KIND_WORKFLOW,
            "invoke_workflow": StepKind.STEP_KIND_WORKFLOW,
        },
    },
    implied={"gen_ai.tool.name": StepKind.STEP_KIND_TOOL, "gen_ai.request.model": _MODEL_REQUEST},
    events={
        "gen_ai.client.inference.operation.details": EventKind.DETAILS,
        "gen_ai.evaluation.result": EventKind.SCORE,
        "gen_ai.client.operation.exception": EventKind.EXCEPTION,
    },
)
