"""CI gate: runs an evaluation, compares it with an earlier one, and fails the build if it is not good enough.

    python client/examples/ci_gate.py --commit abc123 --baseline capitals-abc122 --target 127.0.0.1:7447

Exit status: 0 good enough, 1 not. A build that was killed runs only the missing rows when it is repeated.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected, Evaluator, EvaluatorContext

from lavant.client import Client, Evaluation

CAPITALS = {"Norway": "Oslo", "Italy": "Rome", "Kenya": "Nairobi", "Peru": "Lima", "Japan": "Tokyo"}
MIN_ACCURACY = 0.8


@dataclass
class Short(Evaluator[str, str, None]):
    """Passes an answer of one word."""

    def evaluate(self, ctx: EvaluatorContext[str, str, None]) -> bool:
        return len(ctx.output.split()) == 1


def capital(country: str) -> str:
    """Answer a question; in a real project, an agent does."""
    return CAPITALS[country]


def reasons_to_fail(evaluation: Evaluation) -> list[str]:
    """Describe what is not good enough."""
    reasons = [f"row {row.id} failed: {row.error.message}" for row in evaluation.rows if row.error]
    if evaluation.accuracy is None or evaluation.accuracy < MIN_ACCURACY:
        reasons.append(f"accuracy is {evaluation.accuracy}, less than {MIN_ACCURACY}")
    for compared in evaluation.comparison:
        if compared.verdict == "worse":
            rows = ", ".join(sorted({row.id for row in (*compared.worse, *compared.failed)}))
            reasons.append(f"{compared.name} is worse than in the baseline: {rows}")
    return reasons


def main(argv: Sequence[str] | None = None, task: Callable[[str], str] = capital) -> int:
    parser = argparse.ArgumentParser(description="Fail the build if the evaluation is not good enough.")
    parser.add_argument("--commit", required=True, help="names the evaluation, so that a repeated build continues it")
    parser.add_argument("--baseline", help="id of an earlier evaluation to compare with")
    parser.add_argument("--target", help="HOST:PORT of the server; by default LAVANT_TARGET")
    arguments = parser.parse_args(argv)
    cases = [Case(name=country, inputs=country, expected_output=city) for country, city in CAPITALS.items()]
    dataset = Dataset[str, str, None](name="capitals", cases=cases, evaluators=[EqualsExpected(), Short()])
    with Client(arguments.target) as client:
        evaluation = client.evaluations.run(
            dataset, task, evaluation_id=f"capitals-{arguments.commit}", baseline=arguments.baseline
        )
    print(evaluation)
    reasons = reasons_to_fail(evaluation)
    for reason in reasons:
        print(f"not good enough: {reason}")
    return 1 if reasons else 0


if __name__ == "__main__":
    raise SystemExit(main())
