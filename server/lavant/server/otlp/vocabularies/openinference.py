"""OpenInference, as Arize's instrumentations of many frameworks write it."""

from lavant.server.otlp.vocabularies.vocabulary import Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

OPENINFERENCE = Vocabulary(
    name="openinference",
    attributes={
        Meaning.AGENT_NAME: ("agent.name",),
        Meaning.MODEL: (
            "llm.response.model_name",
            "llm.model_name",
            "llm.request.model_name",
            "embedding.model_name",
            "reranker.model_name",
        ),
        Meaning.CONVERSATION: ("session.id",),
        Meaning.INPUT: ("input.value", "reranker.query"),
        Meaning.OUTPUT: ("output.value",),
        Meaning.FINISH_REASON: ("llm.finish_reason",),
        Meaning.TOOL_NAME: ("tool.name",),
        Meaning.TOOL_CALL_ID: ("tool.id", "tool_call.id"),
        Meaning.INPUT_TOKENS: ("llm.token_count.prompt",),
        Meaning.OUTPUT_TOKENS: ("llm.token_count.completion",),
        Meaning.CACHE_READ_TOKENS: ("llm.token_count.prompt_details.cache_read",),
        Meaning.CACHE_CREATION_TOKENS: ("llm.token_count.prompt_details.cache_write",),
        Meaning.REASONING_TOKENS: ("llm.token_count.completion_details.reasoning",),
        Meaning.COST: ("llm.cost.total",),
    },
    lists={
        "llm.input_messages.": Meaning.INPUT,
        "llm.prompts.": Meaning.INPUT,
        "llm.output_messages.": Meaning.MESSAGES,
        "llm.choices.": Meaning.MESSAGES,
        "retrieval.documents.": Meaning.OUTPUT,
        "reranker.output_documents.": Meaning.OUTPUT,
        "evaluations.": Meaning.SCORES,
        "annotations.": Meaning.SCORES,
    },
    kinds={
        "openinference.span.kind": {
            "llm": StepKind.STEP_KIND_MODEL_REQUEST,
            "embedding": StepKind.STEP_KIND_MODEL_REQUEST,
            "tool": StepKind.STEP_KIND_TOOL,
            "agent": StepKind.STEP_KIND_AGENT,
            "chain": StepKind.STEP_KIND_WORKFLOW,
            "prompt": StepKind.STEP_KIND_WORKFLOW,
            "retriever": StepKind.STEP_KIND_RETRIEVAL,
            "reranker": StepKind.STEP_KIND_RETRIEVAL,
            "guardrail": StepKind.STEP_KIND_GUARDRAIL,
            "evaluator": StepKind.STEP_KIND_EVALUATOR,
        },
    },
)
