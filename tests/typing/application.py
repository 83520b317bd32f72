"""What users write, for the type checkers: both are strict about it."""

from datetime import timedelta

from pydantic_evals.evaluators import Contains

from lavant.client import Alert, AsyncClient, Client, RunFailed, ScoreFilter, Usage
from lavant.client.evals import evaluate, success


async def main() -> None:
    async with AsyncClient("localhost:7447") as client:
        async with client.runs.start("agent", input={"a": 1}, producer_timeout=60) as run:
            await run.text("x")
            async with run.tool("search", {"q": "x"}) as tool:
                tool.result = 1
            async with run.step("plan") as step:
                step.usage = Usage(input_tokens=1)
            run.output = {"answer": 1}
        async with client.runs.stream(run.id, consumer="ui") as stream:
            async for event in stream:
                if event.type == "text_delta":
                    print(event.data.text)
        async for chunk in client.runs.stream(run.id).text_chunks:
            print(chunk)
        async for done in client.runs.stream(run.id).steps:
            print(done.kind, [inner.duration for inner in done.walk()])
        async for progress in client.runs.stream(run.id).progress:
            print(progress.fraction)
        recording = await client.runs.stream(run.id).collect()
        print(recording.text, recording.total_steps)
        for score in await evaluate(recording, [Contains("cold"), success("openai:gpt-5")]):
            print(score.name, score.number, score.explanation)
        async for call in client.runs.stream(run.id).tool_calls:
            print(call.name, call.duration)
        try:
            result = await client.runs.stream(run.id).result()
            print(result.state, result.usage)
        except RunFailed as failed:
            print(failed.result.error)
        async for found in client.runs.list(states=["running"]):
            print(found.id)
        low = Alert(name="low", below=0.8, window=timedelta(hours=1))
        rule = await client.rules.create("quality", evaluators=["polite", success("openai:gpt-5")], alerts=[low])
        rule = await client.rules.update(rule, sample_rate=0.1)
        judged = await client.evaluations.process_stream(
            rule, evaluators=[Contains("cold")], max_concurrency=5, labels={"feeling": "neutral"}, on_evaluated=print
        )
        print(judged.evaluated, judged.failed)
        await client.runs.score(run.id, name="helpful", value=True, explanation="It was.")
        async for recorded in client.runs.scores(run.id):
            print(recorded.name, recorded.number, recorded.rule_id)
        for group in await client.scores.query(by=["rule", "version"], bucket=86_400):
            print(group.start, group.mean, group.percentiles[50])
        for change in await client.scores.compare(ScoreFilter(versions=["2"]), baseline=ScoreFilter(versions=["1"])):
            print(change.trend, change.difference)
        async for alert in client.scores.alerts(consumer="pager"):
            print(alert.data.firing)


def blocking() -> None:
    with Client() as client:
        with client.runs.start("agent") as run:
            run.text("x")
        for event in client.runs.stream(run.id, on_event=print):
            if event.type == "run_finished":
                print(event.data.state)
        print(client.runs.stream(run.id).text())
