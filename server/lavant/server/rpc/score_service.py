"""ScoreService: records scores, lists them, and tells what they add up to."""

import grpc

from lavant.server.errors import invalid_field
from lavant.server.rpc.dispatch import Call, unary
from lavant.server.rpc.score_filter import check_score_filter, grouping_of, percentiles_of
from lavant.server.rpc.validation import check_id, check_labels, check_page_size, check_text, value_check
from lavant.server.scores.comparing import compare
from lavant.server.scores.follower import Follower
from lavant.server.scores.index import ScoreIndex
from lavant.server.scores.recording import Recorder
from lavant.server.scores.totals import Grouping
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.cursors import Cursors, Listing
from lavant.v1 import score_service_pb2 as pb
from lavant.v1.event_pb2 import Score, ScoreRecorded

_MAX_LABELS = 16
_MAX_CLASS = 1_024
_MAX_EXPLANATION = 8_192
_MAX_SCORE_BYTES = 64 << 10
_MAX_ANSWER_BYTES = 3 << 20  # gRPC's clients take 4 MiB
_DEFAULT_MIN_COUNT = 30
_DEFAULT_CONFIDENCE = 0.95

_check_values = value_check(Score.DESCRIPTOR)


class ScoreService:
    """Each method as its comment in the contract says."""

    def __init__(self, recorder: Recorder, index: ScoreIndex, follower: Follower, cursors: Cursors) -> None:
        self._recorder = recorder
        self._index = index
        self._follower = follower
        self._cursors = cursors

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        return grpc.method_handlers_generic_handler(
            pb.DESCRIPTOR.services_by_name["ScoreService"].full_name,
            {
                "RecordScore": unary(pb.RecordScoreRequest, self.record_score),
                "ListScores": unary(pb.ListScoresRequest, self.list_scores),
                "QueryScores": unary(pb.QueryScoresRequest, self.query_scores),
                "CompareScores": unary(pb.CompareScoresRequest, self.compare_scores),
            },
        )

    async def record_score(self, request: pb.RecordScoreRequest, call: Call) -> pb.RecordScoreResponse:
        """See the contract."""
        score_id, run_id = check_id("score_id", request.score_id), check_id("run_id", request.run_id)
        _check_score(request.score)
        check_labels("labels", request.labels, at_most=_MAX_LABELS)
        recorded = ScoreRecorded(subject_run_id=run_id, score=request.score, labels=request.labels)
        return pb.RecordScoreResponse(duplicate=await self._recorder.record(call.tenant, score_id, recorded))

    async def list_scores(self, request: pb.ListScoresRequest, call: Caller) -> pb.ListScoresResponse:
        """See the contract."""
        check_score_filter("filter", request.filter)
        limit = check_page_size("page_size", request.page_size)
        after = None
        if request.page_token:
            after = self._cursors.read(Listing.SCORES, call.tenant, request.page_token, "page_token")
        await self._follower.caught_up()
        page = await self._index.list_scores(call.tenant, request.filter, limit, after)
        token = ""
        if page.next_position is not None:
            token = self._cursors.issue(Listing.SCORES, call.tenant, page.next_position)
        return pb.ListScoresResponse(scores=page.scores, next_page_token=token)

    async def query_scores(self, request: pb.QueryScoresRequest, call: Caller) -> pb.QueryScoresResponse:
        """See the contract."""
        check_score_filter("filter", request.filter)
        grouping, percentiles = grouping_of(request), percentiles_of(request.percentiles)
        await self._follower.caught_up()
        groups = await self._index.query(call.tenant, request.filter, grouping, percentiles)
        response = pb.QueryScoresResponse(groups=groups)
        if response.ByteSize() > _MAX_ANSWER_BYTES:
            raise invalid_field("group_by", "must give fewer groups, for the answer to be sent; narrow the filter")
        return response

    async def compare_scores(self, request: pb.CompareScoresRequest, call: Caller) -> pb.CompareScoresResponse:
        """See the contract."""
        check_score_filter("baseline", request.baseline)
        check_score_filter("candidate", request.candidate)
        if request.min_count < 0:
            raise invalid_field("min_count", "must not be negative")
        if request.confidence and not 0.5 < request.confidence < 1:
            raise invalid_field("confidence", "must be above 0.5 and below 1")
        await self._follower.caught_up()
        by_name = Grouping(("name",))
        changes = compare(
            await self._index.add_up(call.tenant, request.baseline, by_name),
            await self._index.add_up(call.tenant, request.candidate, by_name),
            min_count=request.min_count or _DEFAULT_MIN_COUNT,
            confidence=request.confidence or _DEFAULT_CONFIDENCE,
        )
        return pb.CompareScoresResponse(changes=changes)


def _check_score(score: Score) -> None:
    check_text("score.name", score.name, at_least=1)
    if score.WhichOneof("value") is None:
        raise invalid_field("score", "must have a value: number, passed or label")
    if score.HasField("error"):
        raise invalid_field("score.error", "must not be set: it is for evaluators that failed, and this is a value")
    if score.HasField("label"):
        check_text("score.label", score.label, at_least=1, at_most=_MAX_CLASS)
    if len(score.explanation) > _MAX_EXPLANATION:
        raise invalid_field("score.explanation", f"must be at most {_MAX_EXPLANATION:,} characters long")
    check_text("score.evaluator.name", score.evaluator.name)
    check_text("score.evaluator.version", score.evaluator.version)
    if score.ByteSize() > _MAX_SCORE_BYTES:
        raise invalid_field("score", f"must have at most {_MAX_SCORE_BYTES:,} bytes")
    _check_values("score", score)
