"""Evaluation of runs with pydantic-evals: `await evaluate(recording, [ToolCorrectness(["search_web"]), success()])`.

Takes any evaluators of pydantic-evals. Needs `pip install 'lavant[evals]'`.
"""

from lavant.client.evals.context import context_of
from lavant.client.evals.judges import RunJudge, clarity, clearness, completeness, correctness, efficiency, success
from lavant.client.evals.outages import EvaluatorUnavailable
from lavant.client.evals.scoring import evaluate

__all__ = [
    "EvaluatorUnavailable",
    "RunJudge",
    "clarity",
    "clearness",
    "completeness",
    "context_of",
    "correctness",
    "efficiency",
    "evaluate",
    "success",
]
