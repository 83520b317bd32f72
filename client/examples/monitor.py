"""Production monitor: evaluates the runs of an agent as they finish, and reports when they get worse.

    lavant serve --webhooks http://127.0.0.1:8001/
    uvicorn --app-dir client examples.monitor:app --port 8001
    python client/examples/monitor.py --agent weather-agent --hook http://127.0.0.1:8001/alerts

The monitor evaluates runs, prints changes of alerts, and every minute the alerts that cannot fire, with the reason. Any
number of monitors share the work. `app` receives the webhook, in place of a pager.

Needs `pip install 'lavant[evals,sse]' uvicorn`.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lavant.client import Alert, AlertState, AsyncClient, Rule, ScoreStatistic

RULE = "politeness"
WINDOW = timedelta(minutes=15)
REPORT_INTERVAL = 60.0
MAX_REMEMBERED = 1_000

Say = Callable[[str], object]


@dataclass
class Polite(Evaluator[Any, Any, Any]):
    """Passes an answer without excuses; `success()` of `lavant.client.evals` would ask a language model."""

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluationReason:
        return EvaluationReason(value="sorry" not in str(ctx.output).lower(), reason="looked for excuses")


async def create_rule(client: AsyncClient, agent: str, hook: str = "") -> Rule:
    """Create the rule, which changes nothing if another monitor created it."""
    alerts = (
        Alert(
            name="impolite",
            score_name="Polite",
            statistic=ScoreStatistic.PASS_RATE,
            below=0.8,
            window=WINDOW,
            min_count=5,
            webhook_url=hook,
        ),
        Alert(name="broken", statistic=ScoreStatistic.ERROR_RATE, above=0.2, window=WINDOW, webhook_url=hook),
    )
    return await client.rules.create(RULE, names=[agent], evaluators=[Polite()], alerts=alerts)


async def monitor(client: AsyncClient, agent: str, *, hook: str = "", say: Say = print) -> None:
    """Evaluate and watch, until cancelled."""
    rule = await create_rule(client, agent, hook)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.evaluations.process_stream(rule, evaluators=[Polite()]))
        group.create_task(watch(client, say))
        group.create_task(report(client, rule.id, say))


async def watch(client: AsyncClient, say: Say) -> None:
    """Report each change of the rule's alerts, once."""
    async with client.scores.alerts(start="now") as alerts:
        async for alert in alerts:
            if alert.data.rule_id == RULE:
                say(("firing: " if alert.data.firing else "over: ") + alert.data.message)


async def report(client: AsyncClient, rule_id: str, say: Say) -> None:
    """Report every minute the alerts that cannot fire."""
    while True:
        rule = await client.rules.get(rule_id)
        for status in rule.alert_statuses:
            if status.state is AlertState.CANNOT_FIRE:
                say(f"{status.name} {status.message}")
        await asyncio.sleep(REPORT_INTERVAL)


def receiver(say: Say = print) -> Starlette:
    """Return an application that receives changes of alerts, and reports a repeated one once."""
    seen: dict[str, None] = {}

    async def take(request: Request) -> Response:
        change = await request.json()
        alert_id = request.headers["Lavant-Alert-Id"]
        if alert_id not in seen:
            seen[alert_id] = None
            if len(seen) > MAX_REMEMBERED:
                del seen[next(iter(seen))]
            say(f"page: {change['message']}")
        return Response(status_code=204)

    return Starlette(routes=[Route("/alerts", take, methods=["POST"])])


app = receiver()


async def main(arguments: Sequence[str] | None = None, say: Say = print) -> None:
    """Monitor until cancelled, or for --seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="address of the server; default localhost:7447")
    parser.add_argument("--agent", default="weather-agent", help="name of the runs to evaluate")
    parser.add_argument("--hook", default="", help="URL to post changes of alerts to")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    options = parser.parse_args(arguments)
    async with AsyncClient(options.target) as client:
        with suppress(TimeoutError):
            async with asyncio.timeout(options.seconds):
                await monitor(client, options.agent, hook=options.hook, say=say)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
