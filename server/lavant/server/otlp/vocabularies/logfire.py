"""Logfire and Pydantic AI, beside what they write by the GenAI conventions."""

from lavant.server.otlp.vocabularies.vocabulary import Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

LOGFIRE = Vocabulary(
    name="logfire",
    attributes={
        Meaning.SPAN_TYPE: ("logfire.span_type",),
        Meaning.NAME: ("logfire.msg",),
        Meaning.AGENT_NAME: ("agent_name",),
        Meaning.MODEL: ("model_name",),
        Meaning.INPUT: ("request_data",),
        Meaning.MESSAGES: ("response_data",),
        Meaning.OUTPUT: ("final_result",),
        Meaning.TRANSCRIPT: ("pydantic_ai.all_messages", "all_messages_json"),
        Meaning.ARGUMENTS: ("tool_arguments",),
        Meaning.RESULT: ("tool_response",),
        Meaning.RETRY: ("pydantic_ai.tool.retry.cause",),
        Meaning.INPUT_TOKENS: ("gen_ai.aggregated_usage.input_tokens",),
        Meaning.OUTPUT_TOKENS: ("gen_ai.aggregated_usage.output_tokens",),
        Meaning.CACHE_READ_TOKENS: (
            "gen_ai.aggregated_usage.cache_read.input_tokens",
            "gen_ai.usage.details.cache_read_tokens",
        ),
        Meaning.CACHE_CREATION_TOKENS: (
            "gen_ai.aggregated_usage.cache_creation.input_tokens",
            "gen_ai.usage.details.cache_write_tokens",
        ),
        Meaning.REASONING_TOKENS: ("gen_ai.usage.details.reasoning_tokens",),
        Meaning.COST: ("operation.cost",),
    },
    # Before it wrote the name of the operation.
    span_names={"agent run": StepKind.STEP_KIND_AGENT, "running tool": StepKind.STEP_KIND_TOOL},
    # As the span "running tools" around the tools of one answer.
    scopes={"pydantic-ai": StepKind.STEP_KIND_WORKFLOW},
)
