"""What can go wrong, as exceptions.

* LavantError
  x RunNotSucceeded            the run ended, but not well; carries its result
    + RunFailed
    + RunCancelled
    + RunTimedOut
    + RunAbandoned
  x StreamError                a stream that gives no more events, though the run may go on
    + StreamCut                  it could not be resumed in time, or was closed by its reader
    + StreamDisplaced            another stream of the same consumer took its place
    + StaleAttempt               a newer attempt of the same session is streaming
    + SlowConsumer
    + ConsumerBusy               another session holds the consumer's place
    + ResumeTokenInvalid
    + StoreEpochChanged
    + StreamTimeout              (also a TimeoutError)
    + IdleTimeout                (also a TimeoutError)
    + StreamInUse                (also a RuntimeError) a stream object has two readers
  x ProducerError              events that will not become durable
    + ProducerGap
    + ProducerFenced
    + ProducerConflict
    + ProducerOverloaded         the queue is full, or the server was gone for too long
  x RunNotFound
  x RunExists
  x RunSealed
  x RunNotEnded
  x WaitTimeout                (also a TimeoutError)
  x EvaluationChanged          (also a ValueError)
  x ToolNotStubbed             an evaluated agent called it
  x RuleNotFound
  x RuleExists
  x RuleChanged                since it was read
  x BackfillUnderWay
  x SampleLost                 another worker has it, or it is done
  x InvalidField
  x QuotaExceeded
  x Unauthenticated
  x PermissionDenied
  x Unavailable
  x DataLoss
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import grpc

if TYPE_CHECKING:
    from lavant.client._models import FieldViolation, RunResult


class LavantError(Exception):
    """The base of everything that lavant raises.

    `reason` is the contract's ErrorReason without its prefix, or None where the server gave none;
    `code` is the status code; `retry_after` is in seconds; `metadata` is what else the server told.

    Example:
        try:
            await client.runs.get("no-such-run")
        except LavantError as error:
            assert (error.reason, error.code.name) == ("RUN_NOT_FOUND", "NOT_FOUND")
    """

    default_reason: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        code: grpc.StatusCode | None = None,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: "tuple[FieldViolation, ...]" = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.code = code
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})
        self.violations = violations


class RunNotSucceeded(LavantError):
    """The run ended in another state than SUCCEEDED; `result` tells how.

    Example:
        try:
            await client.runs.stream(failed_id).result()
        except RunNotSucceeded as ended:
            assert ended.result.state in ("failed", "cancelled", "timed_out", "abandoned")
    """

    def __init__(self, result: "RunResult") -> None:
        detail = result.error.message if result.error else ""
        super().__init__(f"run {result.run_id} {result.state.value}" + (f": {detail}" if detail else ""))
        self.result = result


class RunFailed(RunNotSucceeded):
    """The run ended by an error.

    Example:
        try:
            await client.runs.stream(failed_id).text()
        except RunFailed as failed:
            assert failed.result.error.message == "no such city"
    """


class RunCancelled(RunNotSucceeded):
    """The run ended because someone asked.

    Example:
        async with client.runs.start("agent") as run:
            await client.runs.cancel(run.id, "no longer needed")
            await run.wait_cancelled()
            try:
                run.raise_if_cancelled()
            except RunCancelled as cancelled:
                assert cancelled.result.error.message == "no longer needed"
    """


class RunTimedOut(RunNotSucceeded):
    """The run's own time limit passed. Not to be confused with StreamTimeout and WaitTimeout, which are the reader's.

    Example:
        try:
            output = (await client.runs.stream(timed_out_id).result()).output
        except RunTimedOut:
            output = "no answer in time"
    """


class RunAbandoned(RunNotSucceeded):
    """The server ended the run because its producer fell silent.

    Example:
        run = await client.runs.create("agent", producer_timeout=1)  # Nobody begins it.
        try:
            output = (await client.runs.stream(run.id).result()).output
        except RunAbandoned:
            output = "the agent's process died"
    """


class StreamError(LavantError):
    """A stream gives no more events. It says nothing about how the run ended.

    Example:
        async with client.runs.start("agent") as run:
            stream = client.runs.stream(run.id, idle_timeout=0.1)
            try:
                text = await stream.text()
            except StreamError:
                later = client.runs.stream(run.id, resume_token=stream.resume_token)
    """


class StreamCut(StreamError):
    """The connection was lost and not regained in time, or the stream was closed. The token still works.

    A server that was never reached is Unavailable.

    Example:
        async with client.runs.start("agent") as run:
            stream = client.runs.stream(run.id, reconnect_timeout=300)
            assert (await anext(stream)).type == "run_started"
            await stream.aclose()
            try:
                text = await stream.text()
            except StreamCut:
                later = client.runs.stream(run.id, resume_token=stream.resume_token)
    """


class StreamDisplaced(StreamError):
    """Another stream of this consumer took this one's place.

    Example:
        async with client.runs.start("agent") as run:
            first = client.runs.stream(run.id, consumer="ui")
            assert (await anext(first)).type == "run_started"
            second = client.runs.stream(run.id, consumer="ui", take_over=True)
            assert (await anext(second)).type == "run_started"
            try:
                await first.result()
            except StreamDisplaced:
                pass  # It is read elsewhere now: do not open it again.
    """

    default_reason = "STREAM_DISPLACED"


class StaleAttempt(StreamError):
    """A newer attempt of the same session is already streaming.

    Example:
        try:
            text = await client.runs.stream(run_id, consumer="ui").text()
        except StaleAttempt:
            pass  # A newer stream of this very session is at work.
    """

    default_reason = "STALE_ATTEMPT"


class SlowConsumer(StreamError):
    """The reader accepted nothing for too long. The library resumes by itself.

    Example:
        async for event in client.runs.stream(run_id, reconnect_timeout=None):
            pass  # However long this takes, SlowConsumer is met within: the stream resumes.
    """

    default_reason = "SLOW_CONSUMER"


class ConsumerBusy(StreamError):
    """Another session streams this run as this consumer: wait for `retry_after` seconds, or take over.

    Example:
        async with client.runs.start("agent") as run:
            async with client.runs.stream(run.id, consumer="ui") as holder:
                assert (await anext(holder)).type == "run_started"
                try:
                    await anext(client.runs.stream(run.id, consumer="ui"))
                except ConsumerBusy as busy:
                    assert 0 < busy.retry_after <= 15
    """

    default_reason = "CONSUMER_BUSY"


class ResumeTokenInvalid(StreamError):
    """The resume token is damaged, forged, or of another run. Begin anew.

    Example:
        try:
            text = await client.runs.stream(run_id, resume_token="damaged").text()
        except ResumeTokenInvalid:
            text = await client.runs.stream(run_id).text()
    """

    default_reason = "RESUME_TOKEN_INVALID"


class StoreEpochChanged(StreamError):
    """The resume token is of another life of the store. Begin anew.

    Example:
        stream = client.runs.stream(run_id, resume_token=token)
        try:
            last = (await stream.result()).state
        except StoreEpochChanged:  # The store was restored from a backup since.
            last = (await client.runs.stream(run_id).result()).state
    """

    default_reason = "STORE_EPOCH_CHANGED"


class StreamTimeout(StreamError, TimeoutError):
    """The stream's own `timeout` passed before it came to its end.

    Example:
        async with client.runs.start("agent") as run:
            try:
                await client.runs.stream(run.id, timeout=0.1).result()
            except StreamTimeout:
                pass  # It goes on; a stream with the token reads on.
    """


class IdleTimeout(StreamError, TimeoutError):
    """No event came for the stream's own `idle_timeout`.

    Example:
        async with client.runs.start("agent") as run:
            try:
                await client.runs.stream(run.id, idle_timeout=0.1).result()
            except IdleTimeout:
                assert not (await client.runs.get(run.id)).has_ended
    """


class StreamInUse(StreamError, RuntimeError):
    """Two tasks or threads read one stream object: each would get a part of the events. Open a stream for each.

    Example:
        import asyncio

        stream = client.runs.stream(run_id)
        try:
            text, result = await asyncio.gather(stream.text(), stream.result())
        except StreamInUse:
            text = await client.runs.stream(run_id).text()
    """


class ProducerError(LavantError):
    """Events of a producer will not become durable.

    Example:
        async with client.runs.start("agent", on_error="raise") as run:
            await run.text("It is cold.")
        try:
            await run.text("And windy.")
        except ProducerError as lost:
            assert "its block was left" in str(lost)
    """


class ProducerGap(ProducerError):
    """The server misses events before these, and they are no longer held here.

    Example:
        try:
            async with client.runs.start("agent", on_error="raise") as run:
                await run.text("It is cold.")
        except ProducerGap:
            pass  # The server was restored to a time before what was acknowledged: begin another run.
    """

    default_reason = "PRODUCER_GAP"


class ProducerFenced(ProducerError):
    """A newer epoch of this producer is at work.

    Example:
        newer = ProducerOptions(producer_id="worker", producer_epoch=2)
        older = ProducerOptions(producer_id="worker", producer_epoch=1)
        async with client.runs.start("agent", options=newer) as run:
            await run.flush()
            try:
                async with client.runs.start("agent", run_id=run.id, options=older, on_error="raise") as fenced:
                    await fenced.flush()
            except ProducerFenced:
                pass  # Another process took the run over: stop.
    """

    default_reason = "PRODUCER_FENCED"


class ProducerConflict(ProducerError):
    """This producer sequence was stored with other content.

    Example:
        worker = ProducerOptions(producer_id="worker")
        async with client.runs.start("agent", options=worker) as run:
            await run.flush()
            try:
                async with client.runs.start("agent", run_id=run.id, options=worker, on_error="raise") as rival:
                    await rival.flush()
            except ProducerConflict:
                pass  # Two processes publish under one producer_id: give each its own.
    """

    default_reason = "PRODUCER_CONFLICT"


class ProducerOverloaded(ProducerError):
    """The queue stayed full, or its events could not be made durable in time.

    Example:
        impatient = ProducerOptions(queue_bytes=1_000, block_timeout=0)
        try:
            async with client.runs.start("agent", on_error="raise", options=impatient) as run:
                for _ in range(100):
                    await run.text("It is cold. ")
        except ProducerOverloaded as overloaded:
            assert "the queue is full" in str(overloaded)
    """


class RunNotFound(LavantError):
    """No such run, or not yours.

    Example:
        try:
            await client.runs.get("no-such-run")
        except RunNotFound as error:
            assert "no-such-run" in str(error)
    """

    default_reason = "RUN_NOT_FOUND"


class RunExists(LavantError):
    """The run_id is taken by a run with other settings.

    Example:
        await client.runs.create("weather-agent", run_id="nightly")
        try:
            await client.runs.create("another-agent", run_id="nightly")
        except RunExists as error:
            assert error.code.name == "ALREADY_EXISTS"
    """

    default_reason = "RUN_EXISTS"


class RunSealed(LavantError):
    """The run has ended; nothing follows.

    Example:
        try:
            async with client.runs.start("weather-agent", run_id=run_id, on_error="raise") as run:
                await run.text("Once more.")
        except RunSealed:
            pass  # It has ended: begin another run.
    """

    default_reason = "RUN_SEALED"


class RunNotEnded(LavantError):
    """The run has not ended yet.

    Example:
        async with client.runs.start("agent") as run:
            try:
                await client.runs.delete(run.id)
            except RunNotEnded:
                await client.runs.cancel(run.id, "to be deleted")
    """

    default_reason = "RUN_NOT_ENDED"


class WaitTimeout(LavantError, TimeoutError):
    """The run did not end within the time given. It goes on.

    Example:
        async with client.runs.start("agent") as run:
            try:
                await client.runs.wait(run.id, timeout=0.1)
            except WaitTimeout:
                assert (await client.runs.get(run.id)).state == "running"
    """


class ToolNotStubbed(LavantError):
    """An agent called a tool that has no stub, in an evaluation with stubs: real tools need to be named as passthrough.

    Example:
        try:
            raise ToolNotStubbed("the tool 'send_mail' was called and has no stub")  # as the error of a row
        except ToolNotStubbed as error:
            print(error)
    """


class EvaluationChanged(LavantError, ValueError):
    """What is to be run under this evaluation_id is not what was begun under it: run it under another one.

    Example:
        async def run(*cities):
            dataset = Dataset(name="cities", cases=[Case(name=city, inputs=city) for city in cities])
            return await client.evaluations.run(dataset, str.upper, evaluation_id="nightly-7")

        await run("oslo")
        try:
            await run("oslo", "rome")
        except EvaluationChanged as error:
            print(error)
    """


class RuleNotFound(LavantError):
    """No such rule, or not yours.

    Example:
        try:
            await client.rules.get("no-such-rule")
        except RuleNotFound as error:
            assert "no-such-rule" in str(error)
    """

    default_reason = "RULE_NOT_FOUND"


class RuleExists(LavantError):
    """The rule_id is taken by another rule.

    Example:
        await client.rules.create("quality")
        try:
            await client.rules.create("quality", sample_rate=0.1)
        except RuleExists as error:
            assert error.code.name == "ALREADY_EXISTS"
    """

    default_reason = "RULE_EXISTS"


class RuleChanged(LavantError):
    """The rule is no longer what was to be changed: somebody else changed it since it was read.

    Example:
        rule = await client.rules.create("quality")
        await client.rules.update(rule.model_copy(update={"sample_rate": 0.5}))
        try:
            await client.rules.update(rule.model_copy(update={"enabled": False}))
        except RuleChanged:
            rule = await client.rules.get("quality")
        assert rule.sample_rate == 0.5
    """

    default_reason = "RULE_CHANGED"


class BackfillUnderWay(LavantError):
    """The rule looks at past runs already: wait until its `backfill` is done.

    Example:
        await client.rules.create("quality")
        try:
            await client.rules.backfill("quality")
        except BackfillUnderWay:
            rule = await client.rules.get("quality")
            print(rule.backfill.runs_seen, "runs were looked at so far")
    """

    default_reason = "BACKFILL_UNDER_WAY"


class SampleLost(LavantError):
    """A worker no longer holds a sample: it is done, or another worker's by now. Workers of this library drop it.

    Example:
        await client.rules.create("quality")
        try:
            await client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
        except SampleLost:
            pass  # Never: a sample that is lost is somebody else's work.
    """

    default_reason = "SAMPLE_LOST"


class InvalidField(LavantError):
    """A field is missing, malformed or too large; `violations` says which and why.

    Example:
        try:
            await client.runs.create("")
        except InvalidField as error:
            assert error.violations[0].path == "name"
    """

    default_reason = "INVALID_FIELD"


class QuotaExceeded(LavantError):
    """Too many streams or calls, or no room to store.

    Example:
        try:
            await client.runs.create("weather-agent")
        except QuotaExceeded as error:
            print("try again in", error.retry_after or 60, "seconds")
    """

    default_reason = "QUOTA_EXCEEDED"


class Unauthenticated(LavantError):
    """No credentials, or not valid ones.

    Example:
        try:
            run = await client.runs.get(run_id)
        except Unauthenticated:
            raise SystemExit("pass api_key= to the client")
    """

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(LavantError):
    """The credentials do not allow it.

    Example:
        try:
            await client.runs.cancel(run_id)
        except PermissionDenied:
            print("this key may only read")
    """

    default_reason = "PERMISSION_DENIED"


class Unavailable(LavantError):
    """The server cannot be reached, is starting or draining, or has lost its store.

    Example:
        async with AsyncClient("127.0.0.1:9", timeout=0.2) as nowhere:
            try:
                await nowhere.runs.get(run_id)
            except Unavailable as error:
                assert error.code.name == "UNAVAILABLE"
    """

    default_reason = "UNAVAILABLE"


class DataLoss(LavantError):
    """A stored record is damaged. Nothing wrong is ever served.

    Example:
        try:
            text = await client.runs.stream(run_id).text()
        except DataLoss:
            raise SystemExit("restore the store from a backup")
    """

    default_reason = "DATA_LOSS"
