"""Requests that are made from what is stored."""

from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import CreateRunRequest


def created_again(run: Run) -> CreateRunRequest:
    """The request that a run was created by."""
    return CreateRunRequest(
        run_id=run.run_id,
        kind=run.kind,
        name=run.name,
        labels=run.labels,
        parent_run_id=run.parent_run_id,
        conversation_id=run.conversation_id,
        producer_timeout=run.producer_timeout if run.HasField("producer_timeout") else None,
    )
