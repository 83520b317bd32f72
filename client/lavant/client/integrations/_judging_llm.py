"""A language model that judges one aspect of a stored run."""

import os
import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from pydantic_evals.evaluators import (
    EvaluationReason,
    EvaluatorContext,
    EvaluatorOutput,
    LLMJudge,
    OutputConfig,
)
from typing_extensions import override

from lavant.client import _json
from lavant.client.integrations._judging_transcript import shortened, transcript

MODEL_VARIABLE = "LAVANT_JUDGE_MODEL"
_LONGEST = 50_000
# What tells the parts of a judge's question apart: a run must not be able to close one and open another.
_TAG = re.compile(r"<(?=\s*/?\s*(?:input|output|expectedoutput|rubric)\b)", re.IGNORECASE)


@dataclass(repr=False)
class RunJudge(LLMJudge):
    """An LLMJudge that scores one `aspect` of a run from 0 to 1, and says why.

    `model` is any model of pydantic-ai's or its name, by default LAVANT_JUDGE_MODEL. With `include_steps`, the judge
    also sees how the run ended, its steps and its tool calls. What is too long is shortened in the middle, and what a
    run said cannot pass for a part of the question. An answer that is no verdict, or whose score is not from 0 to 1,
    is a failure.

    Raises ValueError if no model is named.

    Example:
        tone = RunJudge("The answer is polite.", model=model, aspect="politeness", include_input=True)
        [score] = await judge(await client.runs.stream(run_id).collect(), [tone])
        assert (score.name, score.value, score.explanation) == ("politeness", 0.9, "It is cold in Oslo.")
    """

    evaluator_version: ClassVar[str] = "1"

    score: OutputConfig | Literal[False] = field(default_factory=lambda: OutputConfig(include_reason=True))
    assertion: OutputConfig | Literal[False] = False
    aspect: str = "judge"
    include_steps: bool = False

    def __post_init__(self) -> None:
        self.model = self.model or os.environ.get(MODEL_VARIABLE) or None
        if self.model is None:
            raise ValueError(f"a judge needs a model: pass model=, or set {MODEL_VARIABLE}")

    @override
    def get_default_evaluation_name(self) -> str:
        """Return the aspect."""
        return self.aspect

    @override
    async def evaluate(self, ctx: EvaluatorContext[object, object, object]) -> EvaluatorOutput:
        """Ask the model."""
        shown = _shown(ctx.output)
        if self.include_steps:
            shown = f"{shown}\n\n{_quoted(transcript(ctx, _LONGEST))}"
        inputs = None if ctx.inputs is None else _shown(ctx.inputs)
        answer = await super().evaluate(replace(ctx, inputs=inputs, output=shown))
        for said in answer.values() if isinstance(answer, dict) else ():
            value = said.value if isinstance(said, EvaluationReason) else said
            if not isinstance(value, str) and not 0 <= value <= 1:
                raise ValueError(f"the judge's score is {value}, not from 0 to 1")
        return answer


def _shown(value: Any) -> str:
    return _quoted(shortened(value if isinstance(value, str) else _json.encode(value), _LONGEST))


def _quoted(text: str) -> str:
    return _TAG.sub("&lt;", text)
