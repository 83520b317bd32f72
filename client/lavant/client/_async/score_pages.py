"""Listing single scores."""

from collections.abc import AsyncIterator

from lavant.client._async.connection import Connection
from lavant.client._scores import RecordedScore
from lavant.v1.score_service_pb2 import ListScoresRequest, ScoreFilter


async def list_scores(connection: Connection, matching: ScoreFilter, page_size: int) -> AsyncIterator[RecordedScore]:
    """Give the scores that match, those of the latest runs first, page by page."""
    request = ListScoresRequest(filter=matching, page_size=page_size)
    while True:
        response = await connection.call(lambda lane: lane.scores.ListScores, request)
        for score in response.scores:
            yield RecordedScore.from_event(score)
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token
