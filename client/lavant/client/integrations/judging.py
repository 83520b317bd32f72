"""Judges runs that are stored: `await judge(recording, [ToolCorrectness(["search_web"]), success()])`.

Any evaluators of pydantic-evals will do. Needs `pip install 'lavant[evals]'`.
"""

from lavant.client.integrations._judging_context import context_of
from lavant.client.integrations._judging_llm import RunJudge
from lavant.client.integrations._judging_outages import EvaluatorUnavailable
from lavant.client.integrations._judging_rubrics import clearness, completeness, correctness, efficiency, success
from lavant.client.integrations._judging_run import judge

__all__ = [
    "EvaluatorUnavailable",
    "RunJudge",
    "clearness",
    "completeness",
    "context_of",
    "correctness",
    "efficiency",
    "judge",
    "success",
]
