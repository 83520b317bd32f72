"""Langfuse's own attributes, as its SDKs write them."""

from lavant.server.otlp.vocabularies.vocabulary import Meaning, Vocabulary
from lavant.v1.event_pb2 import StepKind

LANGFUSE = Vocabulary(
    name="langfuse",
    attributes={
        Meaning.CONVERSATION: ("langfuse.session.id",),
        Meaning.VERSION: ("langfuse.version",),
        Meaning.MODEL: ("langfuse.observation.model.name",),
        Meaning.INPUT: ("langfuse.observation.input",),
        Meaning.OUTPUT: ("langfuse.observation.output",),
    },
    kinds={
        "langfuse.observation.type": {
            "generation": StepKind.STEP_KIND_MODEL_REQUEST,
            "embedding": StepKind.STEP_KIND_MODEL_REQUEST,
            "agent": StepKind.STEP_KIND_AGENT,
            "tool": StepKind.STEP_KIND_TOOL,
            "span": StepKind.STEP_KIND_WORKFLOW,
            "chain": StepKind.STEP_KIND_WORKFLOW,
            "retriever": StepKind.STEP_KIND_RETRIEVAL,
            "guardrail": StepKind.STEP_KIND_GUARDRAIL,
            "evaluator": StepKind.STEP_KIND_EVALUATOR,
        },
    },
)
