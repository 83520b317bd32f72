"""Driver of the Python client: carries out the commands of tests/conformance/README.md by its public API."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from lavant.client import (
    AsyncClient,
    AsyncRunProducer,
    IdleTimeout,
    LavantError,
    ProducerOptions,
    Run,
    RunNotSucceeded,
)
from lavant.client._publishing.requests import created_again
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import RunSettings
from lavant.v1.run_service_pb2 import CreateRunRequest, GetRunRequest, ListRunsRequest, WatchRunsRequest


class Operation:
    """One operation: what it reports, and the commands about it that wait to be carried out."""

    def __init__(self, number: int) -> None:
        self.commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.allowed = asyncio.Semaphore(0)
        self.position = ""
        self.task: asyncio.Task[None] | None = None
        self._number = number

    def say(self, **fields: Any) -> None:
        """Report a line."""
        sys.stdout.write(json.dumps({"id": self._number, **fields}) + "\n")
        sys.stdout.flush()


class Driver:
    """The client, and the operations that it carries out."""

    def __init__(self) -> None:
        self.client = AsyncClient()
        self._operations: dict[int, Operation] = {}

    async def run(self) -> None:
        """Carry out commands until the input ends."""
        while text := await asyncio.to_thread(sys.stdin.readline):
            self._accept(json.loads(text))
        running = [operation.task for operation in self._operations.values() if operation.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.client.aclose()

    def _accept(self, line: dict[str, Any]) -> None:
        do = line.pop("do")
        if "of" in line:
            self._command(self._operations[line.pop("of")], do, line)
            return
        number = line.pop("id")
        operation = self._operations[number] = Operation(number)
        begin: Callable[..., Awaitable[dict[str, Any]]] | None = getattr(self, f"_do_{do}", None)
        if begin is None:
            operation.say(unsupported=True)
            return
        operation.task = asyncio.create_task(_carried_out(operation, begin(operation, **line)))

    def _command(self, operation: Operation, do: str, line: dict[str, Any]) -> None:
        if do == "next":
            operation.allowed.release()
        elif do == "position":
            operation.say(position=operation.position)
        elif do == "cancel" and operation.task is not None:
            operation.task.cancel()
        else:
            operation.commands.put_nowait({"do": do, **line})

    async def _do_connect(
        self,
        _: Operation,
        targets: list[str],
        token_file: str | None = None,
        ca: str | None = None,
        deadline: float = 10,
    ) -> dict[str, Any]:
        token = None if token_file is None else lambda: Path(token_file).read_text().strip()
        self.client = AsyncClient(targets, token=token, tls=ca, timeout=deadline)
        return {}

    async def _do_read(
        self, operation: Operation, run: str, resume_token: str = "", hold: bool = False, **options: Any
    ) -> dict[str, Any]:
        operation.position = resume_token
        options["types"] = [name.lower() for name in options.get("types", ())]
        reason = "HEAD_REACHED" if options.get("stop") == "head" else "RUN_FINISHED"
        async with self.client.runs.stream(run, resume_token=resume_token, **options) as stream:
            try:
                async for event in stream:
                    operation.say(event=MessageToDict(event.proto))
                    if hold:
                        await operation.allowed.acquire()
                    operation.position = stream.resume_token
            except IdleTimeout:
                reason = "IDLE"
            operation.position = stream.resume_token
        return {"reason": reason, "resume_token": operation.position}

    async def _do_publish(
        self,
        operation: Operation,
        run: str,
        create: dict[str, Any] | None = None,
        producer: str | None = None,
        epoch: int = 1,
    ) -> dict[str, Any]:
        identity: dict[str, Any] = {} if producer is None else {"producer_id": producer}
        options = ProducerOptions(producer_epoch=epoch, block_timeout=60, close_timeout=60, **identity)
        publication = Publication(await self._begun(run, create, options), operation)
        if create is not None:
            publication.begin()
        cancelled = asyncio.create_task(publication.report_cancel())
        try:
            operation.say(ready=True)
            return await publication.carry_out()
        finally:
            cancelled.cancel()

    async def _begun(self, run: str, create: dict[str, Any] | None, options: ProducerOptions) -> AsyncRunProducer:
        """Return a producer of a new run, or of one that exists: the public API has no word for the second."""
        if create is None:
            connection = self.client._connection
            found = await connection.call(lambda stubs: stubs.runs.GetRun, GetRunRequest(run_id=run))
            return AsyncRunProducer(connection, created_again(found.run), Event(), options, "raise")
        settings = ParseDict(create, RunSettings())
        timeout = settings.producer_timeout.ToSeconds() if settings.HasField("producer_timeout") else None
        return self.client.runs.start(
            settings.name,
            run_id=run,
            labels=settings.labels,
            producer_timeout=timeout,
            on_error="raise",
            options=options,
        )

    async def _do_read_fast(self, _: Operation, run: str) -> dict[str, Any]:
        began, count = perf_counter(), 0
        async with self.client.runs.stream(run) as stream:
            async for _event in stream:
                count += 1
        return {"events": count, "seconds": perf_counter() - began}

    async def _do_publish_fast(self, _: Operation, run: str, count: int) -> dict[str, Any]:
        began = perf_counter()
        async with self.client.runs.start("fast", run_id=run, on_error="raise") as producer:
            for _number in range(count):
                await producer.custom("note", 1)
        return {"seconds": perf_counter() - began}

    async def _do_create_run(self, _: Operation, request: dict[str, Any]) -> dict[str, Any]:
        wanted = ParseDict(request, CreateRunRequest())
        settings = wanted.settings
        run = await self.client.runs.create(settings.name, run_id=wanted.run_id or None, labels=settings.labels)
        return {"run": _run(run)}

    async def _do_get_run(self, _: Operation, run: str) -> dict[str, Any]:
        return {"run": _run(await self.client.runs.get(run))}

    async def _do_cancel_run(self, _: Operation, run: str, reason: str = "") -> dict[str, Any]:
        return {"run": _run(await self.client.runs.cancel(run, reason))}

    async def _do_wait_run(self, _: Operation, run: str, timeout: float | None = None) -> dict[str, Any]:
        return {"run": _run(await self.client.runs.wait(run, timeout))}

    async def _do_list_runs(self, _: Operation, request: dict[str, Any]) -> dict[str, Any]:
        wanted = ParseDict(request, ListRunsRequest())
        size = wanted.page_size if wanted.HasField("page_size") else None
        found = self.client.runs.list(**_filter(wanted), page_size=size)
        return {"runs": [_run(run) async for run in found]}

    async def _do_list_events(
        self, _: Operation, run: str, types: list[str] | None = None, page_size: int | None = None
    ) -> dict[str, Any]:
        found = self.client.runs.events(run, types=[name.lower() for name in types or ()], page_size=page_size)
        return {"events": [MessageToDict(event.proto) async for event in found]}

    async def _do_watch_runs(self, operation: Operation, request: dict[str, Any]) -> dict[str, Any]:
        async for change in self.client.runs.watch(**_filter(ParseDict(request, WatchRunsRequest()))):
            if change.run is not None:
                operation.say(changed=_run(change.run))
            elif change.type == "caught_up":
                operation.say(caught_up=True)
            else:
                operation.say(**{change.type: change.run_id})
        return {}

    async def _do_text(self, _: Operation, run: str) -> dict[str, Any]:
        return {"text": await self.client.runs.stream(run).text()}

    async def _do_result(self, _: Operation, run: str) -> dict[str, Any]:
        return {"json": (await self.client.runs.stream(run).result()).output}

    async def _do_score(
        self, _: Operation, run: str, name: str, value: float | bool | str, evaluator: str = ""
    ) -> dict[str, Any]:
        await self.client.runs.score(run, name=name, value=value, evaluator=evaluator)
        return {}


class Publication:
    """Commands of a `publish`, carried out by a producer."""

    def __init__(self, producer: AsyncRunProducer, operation: Operation) -> None:
        self._producer = producer
        self._operation = operation
        self._has_begun = False

    def begin(self) -> None:
        """Begin the run."""
        self._has_begun = True
        self._producer.begin()

    async def carry_out(self) -> dict[str, Any]:
        """Carry out commands up to `finish`, and return the outcome."""
        async with asyncio.TaskGroup() as flushes:
            while (command := await self._operation.commands.get())["do"] != "finish":
                if command["do"] == "send":
                    for fields in command["events"]:
                        await self._publish(ParseDict(fields, Event()))
                    self._operation.say(queued=len(command["events"]))
                elif command["do"] == "flush":
                    flushes.create_task(self._flush(command.get("tag")))
        self._producer.end(_error(command))
        await self._producer.flush(60)
        receipt = self._producer.last_receipt
        assert receipt is not None
        return {
            "last_producer_sequence": str(receipt.last_producer_sequence),
            "last_sequence": str(receipt.last_sequence),
        }

    async def _flush(self, tag: int | None) -> None:
        await self._producer.flush()
        receipt = self._producer.last_receipt
        self._operation.say(flushed=str(0 if receipt is None else receipt.last_producer_sequence), tag=tag)

    async def report_cancel(self) -> None:
        """Report a request to cancel when there is one."""
        await self._producer.wait_cancelled()
        self._operation.say(cancel_requested=self._producer.cancel_reason)

    async def _publish(self, event: Event) -> None:
        if self._has_begun:
            await self._producer.publish(event)
        else:
            self._has_begun = True
            self._producer._publisher.begin(event)


async def _carried_out(operation: Operation, outcome: Awaitable[dict[str, Any]]) -> None:
    try:
        operation.say(done=await outcome)
    except asyncio.CancelledError:
        operation.say(done={"reason": "CANCELLED"})
    except ExceptionGroup as group:  # of the flushes of a run
        _report(operation, group.exceptions[0])
    except Exception as error:
        _report(operation, error)


def _report(operation: Operation, failure: Exception) -> None:
    try:
        raise failure
    except RunNotSucceeded as ended:
        operation.say(error={"reason": "", "code": "", "message": str(ended)})
    except LavantError as error:
        code = "" if error.code is None else error.code.name
        # An exception that the client raises by itself has the reason of its kind, and no code.
        reason = error.reason if error.reason and error.code is not None else ""
        operation.say(error={"reason": reason, "code": code, "message": error.message})
    except Exception as error:
        operation.say(error={"reason": "", "code": "", "message": f"{type(error).__name__}: {error}"})


def _error(command: dict[str, Any]) -> BaseException | None:
    message = command.get("error_message", "")
    return {
        "SUCCEEDED": None,
        "FAILED": RuntimeError(message),
        "CANCELLED": asyncio.CancelledError(message),
    }[command["state"]]


def _run(run: Run) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "runId": run.id,
        "kind": f"RUN_KIND_{run.kind.value.upper()}",
        "name": run.name,
        "state": f"RUN_STATE_{run.state.value.upper()}",
        "labels": dict(run.labels),
        "lastSequence": str(run.last_sequence),
    }
    if run.result is not None:
        output = None if run.result.output is None else json.dumps(run.result.output)
        fields["result"] = {"state": f"RUN_STATE_{run.result.state.value.upper()}", "outputJson": output}
        if run.result.error is not None:
            fields["result"]["error"] = {"message": run.result.error.message}
    return fields


def _filter(request: ListRunsRequest | WatchRunsRequest) -> dict[str, Any]:
    states = MessageToDict(request.filter).get("states", [])
    return {
        "states": [state.removeprefix("RUN_STATE_").lower() for state in states],
        "names": list(request.filter.names),
        "labels": dict(request.filter.labels),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mutant"]:
        sys.path.insert(0, str(Path(__file__).parents[2]))
        from conformance.drivers.mutants import MUTANTS

        MUTANTS[sys.argv[2]].patch()
    asyncio.run(Driver().run())
