"""Evaluation of a stored run with evaluators that work, fail, hang and return invalid values."""

import asyncio
import threading
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr
from pydantic_evals.evaluators import Contains, EqualsExpected, EvaluationReason, Evaluator, EvaluatorContext

from lavant.client import AsyncClient, Recording
from lavant.client.evals import evaluate
from lavant.v1.event_pb2 import Event, RowFinished

AnyEvaluator = Evaluator[Any, Any, Any]
Context = EvaluatorContext[Any, Any, Any]


@dataclass
class Length(Evaluator[Any, Any, Any]):
    """One of a user's own."""

    longest: int = 20
    evaluator_version: ClassVar[str] = "2"

    def evaluate(self, ctx: Context) -> dict[str, Any]:
        length = len(ctx.output)
        return {
            "is_short": EvaluationReason(length <= self.longest, f"{length} characters"),
            "length": length,
            "size": "small",
        }


@dataclass
class Answering(Evaluator[Any, Any, Any]):
    """Returns any value."""

    answer: Any

    async def evaluate(self, ctx: Context) -> Any:
        return self.answer


@dataclass
class Raising(Evaluator[Any, Any, Any]):
    error: BaseException

    async def evaluate(self, ctx: Context) -> bool:
        raise self.error


@dataclass
class RaisingInThread(Evaluator[Any, Any, Any]):
    error: BaseException

    def evaluate(self, ctx: Context) -> bool:
        raise self.error


@dataclass
class Hanging(Evaluator[Any, Any, Any]):
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def evaluate(self, ctx: Context) -> bool:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return True


@dataclass
class Blocking(Evaluator[Any, Any, Any]):
    released: threading.Event = field(default_factory=threading.Event)

    def evaluate(self, ctx: Context) -> bool:
        return self.released.wait()


@dataclass
class Meeting(Evaluator[Any, Any, Any]):
    """Is done once as many as the barrier holds have met."""

    barrier: asyncio.Barrier
    at_work: list[object]

    async def evaluate(self, ctx: Context) -> int:
        self.at_work.append(self)
        most = len(self.at_work)
        await self.barrier.wait()
        self.at_work.pop()
        return most


@dataclass
class Spoiling(Evaluator[Any, Any, Any]):
    def evaluate(self, ctx: Context) -> bool:
        ctx.output.append("spoiled")
        ctx.metrics.clear()
        return True


@dataclass
class Unspoiled(Evaluator[Any, Any, Any]):
    def evaluate(self, ctx: Context) -> bool:
        return "spoiled" not in ctx.output and "duration" in ctx.metrics


@dataclass
class Promising(Evaluator[Any, Any, Any]):
    """Returns a promise from a plain method, as evaluators may."""

    def evaluate(self, ctx: Context) -> Awaitable[bool]:
        return Answering(True).evaluate(ctx)


@dataclass
class Overriding(Evaluator[Any, Any, Any]):
    """Says itself how it is called."""

    def evaluate(self, ctx: Context) -> bool:
        return False

    async def evaluate_async(self, ctx: Context) -> bool:
        return True


@dataclass
class Nameless(Evaluator[Any, Any, Any]):
    def get_default_evaluation_name(self) -> str:
        raise LookupError("no name")

    def evaluate(self, ctx: Context) -> bool:
        return True


@dataclass
class Service:
    url: str
    api_key: str


@dataclass
class Remote(Evaluator[Any, Any, Any]):
    """Has settings of all sorts."""

    url: str
    password: str
    key: SecretStr
    service: Service
    client: Any
    settings: Mapping[str, Any]

    def evaluate(self, ctx: Context) -> bool:
        return True

    def get_evaluator_version(self) -> str:
        return "3"


@pytest.fixture
async def recording(client: AsyncClient) -> Recording:
    async with client.runs.start("agent") as run:
        run.output = ["It is cold."]
    return await client.runs.stream(run.id).collect()


async def test_one_evaluator_may_say_several_things(recording: Recording) -> None:
    scores = await evaluate(recording, [Length(longest=0)])
    assert [(score.name, score.value, score.explanation) for score in scores] == [
        ("is_short", False, "1 characters"),
        ("length", 1.0, ""),
        ("size", "small", ""),
    ]
    assert {(score.evaluator, score.version, str(score.config)) for score in scores} == {
        ("Length", "2", "{'longest': 0}")
    }
    assert await evaluate(recording, [EqualsExpected()]) == []  # which has nothing to compare with


NONSENSE = [None, object(), [True], float("nan"), float("inf"), 10**400, {"a": None}, EvaluationReason(None)]  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", NONSENSE, ids=lambda answer: type(answer).__name__)
async def test_nonsense_is_a_score_with_an_error(recording: Recording, answer: object) -> None:
    wrong, right = await evaluate(recording, [Answering(answer), Contains("It is cold.")])
    assert (wrong.value, wrong.evaluator) == (None, "Answering")
    assert wrong.error is not None
    assert wrong.error.type in {"TypeError", "OverflowError"}
    assert (right.value, right.error) == (True, None)


async def test_nonsense_costs_no_other_result_of_the_same_evaluator(recording: Recording) -> None:
    right, wrong, label = await evaluate(recording, [Answering({"right": 0.5, "wrong": b"", "label": "good"})])
    assert (right.value, label.value) == (0.5, "good")
    assert wrong.error is not None
    assert wrong.error.message == "an evaluator must return a bool, a finite number or text, not b''"


@pytest.mark.parametrize("kind", [Raising, RaisingInThread])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LookupError("no judge"), ("LookupError", "no judge")),
        (TimeoutError("its own"), ("TimeoutError", "its own")),
        (SystemExit("its own"), ("SystemExit", "its own")),
        (asyncio.CancelledError("its own"), ("asyncio.exceptions.CancelledError", "its own")),
    ],
    ids=repr,
)
async def test_a_failure_costs_no_other_score(
    recording: Recording, kind: Any, error: BaseException, told: tuple[str, str]
) -> None:
    failed, right = await evaluate(recording, [kind(error), Contains("It is cold.")])
    assert failed.error is not None
    assert (failed.name, failed.value, failed.error.type) == (kind.__name__, None, told[0])
    assert failed.error.message in (told[1], "CancelledError")
    assert (right.value, right.error) == (True, None)


async def test_an_iterator_without_an_item_is_a_failure(recording: Recording) -> None:
    (failed,) = await evaluate(recording, [RaisingInThread(StopIteration())], timeout=None)
    assert failed.error is not None
    assert failed.error.message == "StopIteration was raised"


async def test_an_evaluator_that_cannot_be_described_is_a_failure(recording: Recording) -> None:
    failed, right = await evaluate(recording, [Nameless(), Contains("It is cold.")])
    assert failed.error is not None
    assert (failed.name, failed.evaluator, failed.error.message) == ("Nameless", "Nameless", "no name")
    assert right.value is True


async def test_one_that_takes_too_long_is_a_failure(recording: Recording) -> None:
    blocking = Blocking()
    try:
        hung, blocked, right = await evaluate(recording, [Hanging(), blocking, Answering(True)], timeout=0.5)
    finally:
        blocking.released.set()
    for score in (hung, blocked):
        assert score.error is not None
        assert (score.error.type, score.error.message) == ("TimeoutError", "took longer than 0.5 s")
    assert right.value is True


async def test_those_that_block_for_ever_leave_room_for_others(recording: Recording) -> None:
    blocking = Blocking()
    try:
        await evaluate(recording, [blocking] * 40, timeout=0.01, max_concurrency=40)
        (right,) = await evaluate(recording, [Contains("It is cold.")], timeout=10)
    finally:
        blocking.released.set()
    assert right.value is True


async def test_cancelling_cancels_them(recording: Recording) -> None:
    first, second = Hanging(), Hanging()
    judging = asyncio.create_task(evaluate(recording, [first, second], timeout=None))
    await asyncio.gather(first.began.wait(), second.began.wait())
    judging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judging
    assert first.ended.is_set()
    assert second.ended.is_set()


async def test_as_many_as_allowed_are_at_work_and_no_more(recording: Recording) -> None:
    meeting = Meeting(asyncio.Barrier(2), [])
    scores = await evaluate(recording, [meeting] * 4, max_concurrency=2)
    assert max(score.number or 0 for score in scores) == 2


async def test_no_evaluator_sees_what_another_does_to_the_run(recording: Recording) -> None:
    scores = await evaluate(recording, [Spoiling(), Unspoiled()], max_concurrency=1)
    assert [score.value for score in scores] == [True, True]
    assert recording.result.output == ["It is cold."]


async def test_a_promise_is_awaited(recording: Recording) -> None:
    (score,) = await evaluate(recording, [Promising()])
    assert score.value is True


async def test_an_evaluator_may_say_how_it_is_called(recording: Recording) -> None:
    (score,) = await evaluate(recording, [Overriding()])
    assert score.value is True


async def test_scores_of_one_name_are_numbered(recording: Recording) -> None:
    scores = await evaluate(recording, [Contains("x"), Contains("It is cold."), Raising(OSError()), Contains("y")])
    assert [score.name for score in scores] == ["Contains", "Contains_2", "Raising", "Contains_3"]
    assert [score.config for score in scores[:2]] == [{"value": "x"}, {"value": "It is cold."}]


async def test_secrets_are_not_in_the_score(recording: Recording) -> None:
    remote = Remote(
        url="https://me:hunter2@example.org/judge",
        password="hunter2",
        key=SecretStr("hunter2"),
        service=Service("https://example.org", "hunter2"),
        client=[object(), "Basic understanding is enough."],
        settings={
            "max_tokens": 5,
            "accessToken": "hunter2",
            "extra_headers": [{"X-Api-Key": "hunter2"}, {"Authorization": "hunter2"}, "Bearer hunter2.of.all.hunters"],
        },
    )
    (score,) = await evaluate(recording, [remote])
    assert "hunter2" not in score.model_dump_json()
    assert score.version == "3"
    assert score.config == {
        "url": "https://***@example.org/judge",
        "password": "***",
        "key": "**********",
        "service": {"url": "https://example.org", "api_key": "***"},
        "client": [{"type": "object"}, "Basic understanding is enough."],
        "settings": {
            "max_tokens": 5,
            "accessToken": "***",
            "extra_headers": [{"X-Api-Key": "***"}, {"Authorization": "***"}, "Bearer ***"],
        },
    }


async def test_settings_that_contain_themselves_do_not_keep_an_evaluator_from_its_work(recording: Recording) -> None:
    endless: list[Any] = []
    endless.append(endless)
    (score,) = await evaluate(recording, [Contains(endless)])
    assert (score.value, score.error, score.config) == (
        False,
        None,
        {"value": [{"type": "list", "contains": "itself"}]},
    )


async def test_scores_can_be_stored(client: AsyncClient, recording: Recording) -> None:
    bad = "\ud800"
    answers = Answering({"n": 1, "b": True, "l": bad, "x": None, bad: EvaluationReason(0.5, bad + "x" * 100_000)})
    scores = await evaluate(recording, [answers, Contains("z" * 100_000), Length()])
    async with client.runs.start("scores", kind="evaluation") as run:
        for score in scores:
            row = RowFinished(row_id=recording.run_id, iteration=1, scores=[score.to_proto()])
            await run.publish(Event(row_finished=row))
    rows = [event.data async for event in client.runs.events(run.id) if event.type == "row_finished"]
    stored = [score for row in rows for score in row.scores]
    assert stored == scores
    assert [type(score.value) for score in stored[:4]] == [float, bool, str, type(None)]
    assert len(stored[4].explanation) == 8_192
    assert stored[5].config["truncated"] is True


async def test_arguments_that_make_no_sense_are_refused(recording: Recording) -> None:
    with pytest.raises(ValueError, match="max_concurrency must be 1 or more, not 0"):
        await evaluate(recording, [], max_concurrency=0)
    with pytest.raises(ValueError, match="timeout must be a number of seconds, not -1"):
        await evaluate(recording, [], timeout=-1)
