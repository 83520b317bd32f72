"""Exceptions that lavant raises.

* LavantError
  x RunNotSucceeded            the run ended in another state than SUCCEEDED
    + RunFailed
    + RunCancelled
    + RunTimedOut
    + RunAbandoned
  x StreamError                the stream ended before what was asked for; the run may continue
    + StreamCut
    + StreamDisplaced
    + StaleAttempt
    + SlowConsumer
    + ConsumerBusy
    + ResumeTokenInvalid
    + StoreEpochChanged
    + StreamTimeout              (also a TimeoutError)
    + IdleTimeout                (also a TimeoutError)
    + StreamInUse                (also a RuntimeError)
  x ProducerError              events of a run will not be stored
    + ProducerGap
    + ProducerFenced
    + ProducerConflict
    + ProducerOverloaded
  x RunNotFound
  x RunExists
  x RunSealed
  x RunNotEnded
  x WaitTimeout                (also a TimeoutError)
  x EvaluationChanged          (also a ValueError)
  x ToolNotStubbed
  x KeyNotFound
  x RuleNotFound
  x RuleExists
  x RuleChanged
  x BackfillUnderWay
  x SampleLost
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
    from lavant.client.models import FieldViolation, RunResult


class LavantError(Exception):
    """Base of all exceptions that lavant raises for a run, a stream or a call.

    `reason` is the contract's ErrorReason without its prefix, and `code` the gRPC status code; both are None where no
    server reported the error. `retry_after` is the delay in seconds that the server asks for before a retry, None if
    it asks for none. `metadata` has the reason's further values, `violations` the fields that were refused.

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
    """The run ended in another state than SUCCEEDED. `result` has the state, the error and the output.

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
    """The run ended with an error.

    Example:
        try:
            await client.runs.stream(failed_id).text()
        except RunFailed as failed:
            assert failed.result.error.message == "no such city"
    """


class RunCancelled(RunNotSucceeded):
    """The run was cancelled.

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
    """The run exceeded its own time limit. The limits of readers raise StreamTimeout and WaitTimeout instead.

    Example:
        try:
            output = (await client.runs.stream(timed_out_id).result()).output
        except RunTimedOut:
            output = "no answer in time"
    """


class RunAbandoned(RunNotSucceeded):
    """The server ended the run because its producer sent nothing for longer than `producer_timeout`.

    Example:
        run = await client.runs.create("agent", producer_timeout=1)  # No producer starts it.
        try:
            output = (await client.runs.stream(run.id).result()).output
        except RunAbandoned:
            output = "the agent's process died"
    """


class StreamError(LavantError):
    """The stream ended before what was asked for. It says nothing about how the run ended.

    Example:
        async with client.runs.start("agent") as run:
            stream = client.runs.stream(run.id, idle_timeout=0.1)
            try:
                text = await stream.text()
            except StreamError:
                later = client.runs.stream(run.id, resume_token=stream.resume_token)
    """


class StreamCut(StreamError):
    """The connection was lost and not restored within `reconnect_timeout`, or the stream was closed.

    The resume token stays valid. If no connection ever succeeded, Unavailable is raised instead.

    Example:
        async with client.runs.start("agent") as run:
            stream = client.runs.stream(run.id)
            assert (await anext(stream)).type == "run_started"
            await stream.aclose()
            try:
                text = await stream.text()
            except StreamCut:
                later = client.runs.stream(run.id, resume_token=stream.resume_token)
    """


class StreamDisplaced(StreamError):
    """A newer stream of this consumer acquired the lease. Do not reconnect: that would displace the newer one.

    Example:
        async with client.runs.start("agent") as run:
            first = client.runs.stream(run.id, consumer="ui")
            assert (await anext(first)).type == "run_started"
            second = client.runs.stream(run.id, consumer="ui", take_over=True)
            assert (await anext(second)).type == "run_started"
            try:
                await first.result()
            except StreamDisplaced:
                pass  # The other stream reads on.
    """

    default_reason = "STREAM_DISPLACED"


class StaleAttempt(StreamError):
    """A newer attempt of the same session is streaming: `attempt`."""

    default_reason = "STALE_ATTEMPT"
    attempt = 0


class SlowConsumer(StreamError):
    """The reader accepted nothing for 30 seconds, and the server ended the call. Streams of this client resume.

    Example:
        async for event in client.runs.stream(run_id, reconnect_timeout=None):
            pass  # A slow loop never raises SlowConsumer: the stream resumes.
    """

    default_reason = "SLOW_CONSUMER"


class ConsumerBusy(StreamError):
    """Another session holds this consumer's lease. Retry after `retry_after` seconds, or pass `take_over=True`.

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
    """The resume token is damaged, forged, or belongs to another run. Read the run from its beginning.

    Example:
        try:
            text = await client.runs.stream(run_id, resume_token="damaged").text()
        except ResumeTokenInvalid:
            text = await client.runs.stream(run_id).text()
    """

    default_reason = "RESUME_TOKEN_INVALID"


class StoreEpochChanged(StreamError):
    """The store was restored from a backup after the resume token was issued. Read the run from its beginning."""

    default_reason = "STORE_EPOCH_CHANGED"


class StreamTimeout(StreamError, TimeoutError):
    """The stream did not end within its `timeout`. The run continues, and the resume token stays valid.

    Example:
        async with client.runs.start("agent") as run:
            try:
                await client.runs.stream(run.id, timeout=0.1).result()
            except StreamTimeout:
                assert not (await client.runs.get(run.id)).has_ended
    """


class IdleTimeout(StreamError, TimeoutError):
    """The stream received no event for its `idle_timeout`. The run continues, and the resume token stays valid.

    Example:
        async with client.runs.start("agent") as run:
            try:
                await client.runs.stream(run.id, idle_timeout=0.1).result()
            except IdleTimeout:
                assert not (await client.runs.get(run.id)).has_ended
    """


class StreamInUse(StreamError, RuntimeError):
    """Two tasks or threads read one stream object, so each would get a part of the events. Open one stream each.

    Example:
        import asyncio

        stream = client.runs.stream(run_id)
        try:
            text, result = await asyncio.gather(stream.text(), stream.result())
        except StreamInUse:
            text = await client.runs.stream(run_id).text()
    """


class ProducerError(LavantError):
    """Events of a run will not be stored.

    Example:
        async with client.runs.start("agent", on_error="raise") as run:
            await run.text("It is cold.")
        try:
            await run.text("And windy.")
        except ProducerError as error:
            assert "has ended" in str(error)
    """


class ProducerGap(ProducerError):
    """The server lacks earlier events of this producer, and the client no longer holds them.

    This happens after the store was restored to a time before events that were acknowledged. Start another run.
    `expected_producer_sequence` is the number of the first event that the server lacks; `follows_rejection` says
    whether an earlier batch of the same call was rejected.
    """

    default_reason = "PRODUCER_GAP"
    expected_producer_sequence = 0
    follows_rejection = False


class ProducerFenced(ProducerError):
    """A newer epoch of this producer, `epoch`, publishes into the run. Stop: another process continues the run.

    Example:
        newer = ProducerOptions(producer_id="worker", producer_epoch=2)
        older = ProducerOptions(producer_id="worker", producer_epoch=1)
        async with client.runs.start("agent", options=newer) as run:
            await run.flush()
            try:
                async with client.runs.start("agent", run_id=run.id, options=older, on_error="raise") as fenced:
                    await fenced.flush()
            except ProducerFenced:
                pass  # Stop.
    """

    default_reason = "PRODUCER_FENCED"
    epoch = 0


class ProducerConflict(ProducerError):
    """Other content is stored under `producer_sequence`: two processes publish under one `producer_id`.

    Example:
        worker = ProducerOptions(producer_id="worker")
        async with client.runs.start("agent", options=worker) as run:
            await run.flush()
            try:
                async with client.runs.start("agent", run_id=run.id, options=worker, on_error="raise") as rival:
                    await rival.flush()
            except ProducerConflict:
                pass  # Choose a producer_id per process.
    """

    default_reason = "PRODUCER_CONFLICT"
    producer_sequence = 0


class ProducerOverloaded(ProducerError):
    """The queue was full for longer than `block_timeout`, or events were not durable in time.

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
    """The run does not exist, or belongs to another tenant.

    Example:
        try:
            await client.runs.get("no-such-run")
        except RunNotFound as error:
            assert "no-such-run" in str(error)
    """

    default_reason = "RUN_NOT_FOUND"


class RunExists(LavantError):
    """Another run with other settings has this `run_id`. Choose another id.

    Example:
        await client.runs.create("weather-agent", run_id="nightly")
        try:
            await client.runs.create("another-agent", run_id="nightly")
        except RunExists as error:
            assert error.code.name == "ALREADY_EXISTS"
    """

    default_reason = "RUN_EXISTS"


class RunSealed(LavantError):
    """The run has ended, so nothing can be added to its log.

    Example:
        try:
            async with client.runs.start("weather-agent", run_id=run_id, on_error="raise") as run:
                await run.text("Once more.")
        except RunSealed:
            pass  # Start another run.
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
    """The run did not end within the `timeout` of a wait. The run continues.

    Example:
        async with client.runs.start("agent") as run:
            try:
                await client.runs.wait(run.id, timeout=0.1)
            except WaitTimeout:
                assert (await client.runs.get(run.id)).state == "running"
    """


class ToolNotStubbed(LavantError):
    """An agent called a tool without a stub, in an evaluation with stubs.

    Add a stub, or name the tool in `passthrough` to run the real one. The error is the row's, not the evaluation's.

    Example:
        try:
            raise ToolNotStubbed("the tool 'send_mail' was called and has no stub")  # as the error of a row
        except ToolNotStubbed as error:
            print(error)
    """


class EvaluationChanged(LavantError, ValueError):
    """The dataset, evaluators or iterations differ from those that this `evaluation_id` began with.

    Choose another `evaluation_id`.

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
    """The rule does not exist, or belongs to another tenant.

    Example:
        try:
            await client.rules.get("no-such-rule")
        except RuleNotFound as error:
            assert "no-such-rule" in str(error)
    """

    default_reason = "RULE_NOT_FOUND"


class KeyNotFound(LavantError):
    """The API key does not exist, or belongs to another tenant.

    Example:
        try:
            await client.access.revoke_key("no-such-key")
        except KeyNotFound as error:
            assert "no-such-key" in str(error)
    """

    default_reason = "KEY_NOT_FOUND"


class RuleExists(LavantError):
    """Another rule with other settings has this `rule_id`. Choose another id, or update that rule.

    Example:
        await client.rules.create("quality")
        try:
            await client.rules.create("quality", sample_rate=0.1)
        except RuleExists as error:
            assert error.code.name == "ALREADY_EXISTS"
    """

    default_reason = "RULE_EXISTS"


class RuleChanged(LavantError):
    """The rule was changed after it was read. Get the rule again and repeat the change.

    Example:
        rule = await client.rules.create("quality")
        await client.rules.update(rule, sample_rate=0.5)
        try:
            await client.rules.update(rule, paused=True)
        except RuleChanged:
            rule = await client.rules.get("quality")
        assert rule.sample_rate == 0.5
    """

    default_reason = "RULE_CHANGED"


class BackfillUnderWay(LavantError):
    """Another backfill of this rule has not finished. Wait until the rule's `backfill` is `done`."""

    default_reason = "BACKFILL_UNDER_WAY"


class SampleLost(LavantError):
    """The worker no longer holds the sample's lease. `process_stream` drops such samples and never raises this."""

    default_reason = "SAMPLE_LOST"


class InvalidField(LavantError):
    """A field is missing, malformed or too large. `violations` has its path and the rule that it breaks.

    Example:
        try:
            await client.runs.create("")
        except InvalidField as error:
            assert error.violations[0].path == "settings.name"
    """

    default_reason = "INVALID_FIELD"


class QuotaExceeded(LavantError):
    """There are too many streams or calls, or the store is full."""

    default_reason = "QUOTA_EXCEEDED"


class Unauthenticated(LavantError):
    """The call has no valid credentials. Pass `api_key` or `token` to the client.

    With `token`, the client has obtained another token before it raises this.
    """

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(LavantError):
    """The credentials do not allow this call, as a key that may only read. `scope` is what they lack."""

    default_reason = "PERMISSION_DENIED"

    @property
    def scope(self) -> str | None:
        """Scope that the credential lacks, such as `runs:publish`; None if it is denied for another reason."""
        return self.metadata.get("scope")


class Unavailable(LavantError):
    """The server cannot be reached, is starting or draining, or its store is unreachable. Retry later.

    Example:
        async with AsyncClient("127.0.0.1:9", timeout=0.2) as nowhere:
            try:
                await nowhere.runs.get(run_id)
            except Unavailable as error:
                assert error.code.name == "UNAVAILABLE"
    """

    default_reason = "UNAVAILABLE"


class DataLoss(LavantError):
    """A stored record is damaged, and the server returns nothing of it. Restore the store from a backup."""

    default_reason = "DATA_LOSS"
