"""ScoreService: records, lists, aggregates and compares scores."""

from lavant.server.auth.access import check_readable
from lavant.server.auth.principal import Scope
from lavant.server.errors import invalid_field
from lavant.server.model import RunKey
from lavant.server.rpc.bounds import checked
from lavant.server.rpc.dispatch import Call, Service, unary
from lavant.server.rpc.validation import DEFAULT_PAGE_SIZE, check_text
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.scores.query.aggregation import Grouping, query_scores
from lavant.server.scores.query.comparison import compare_scores
from lavant.server.scores.query.listing import list_scores
from lavant.server.scores.recorder import Recorder
from lavant.server.store.port import Engine
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.tokens import Listing, PageTokens
from lavant.v1 import score_service_pb2 as pb
from lavant.v1.event_pb2 import Score, ScoreRecorded

_MAX_CLASS = 1_024
_MAX_EXPLANATION = 8_192
_MAX_SCORE_BYTES = 64 << 10
_MAX_ANSWER_BYTES = 3 << 20  # gRPC's clients take 4 MiB
_DEFAULT_MIN_COUNT = 30
_DEFAULT_CONFIDENCE = 0.95
_DEFAULT_PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_DIMENSIONS = {
    pb.SCORE_DIMENSION_RULE: "rule_id",
    pb.SCORE_DIMENSION_NAME: "name",
    pb.SCORE_DIMENSION_EVALUATOR: "evaluator",
    pb.SCORE_DIMENSION_VERSION: "version",
    pb.SCORE_DIMENSION_RUN_NAME: "run_name",
}


class ScoreService:
    """The RPCs of ScoreService; the contract describes each."""

    def __init__(
        self, engine: Engine, recorder: Recorder, index: ScoreIndex, follower: Follower, page_tokens: PageTokens
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._index = index
        self._follower = follower
        self._page_tokens = page_tokens

    def service(self) -> Service:
        """Return the methods for a gRPC server, with the scopes that they need."""
        return Service(
            pb.DESCRIPTOR.services_by_name["ScoreService"].full_name,
            {
                "RecordScore": unary(pb.RecordScoreRequest, self.record_score, Scope.SCORES_WRITE),
                "ListScores": unary(pb.ListScoresRequest, self.list_scores, Scope.SCORES_READ),
                "QueryScores": unary(pb.QueryScoresRequest, self.query_scores, Scope.SCORES_READ),
                "CompareScores": unary(pb.CompareScoresRequest, self.compare_scores, Scope.SCORES_READ),
            },
        )

    @checked(pb.RecordScoreRequest)
    async def record_score(self, request: pb.RecordScoreRequest, call: Call) -> pb.RecordScoreResponse:
        """Record a score of a run, once per ID."""
        _check_score(request.score)
        recorded = ScoreRecorded(subject_run_id=request.run_id, score=request.score, labels=request.labels)
        check_readable(call.principal, request.run_id)
        restriction = call.principal.restriction
        is_known = await self._recorder.record(call.tenant, request.score_id, recorded, restriction)
        return pb.RecordScoreResponse(duplicate=is_known)

    @checked(pb.ListScoresRequest)
    async def list_scores(self, request: pb.ListScoresRequest, call: Caller) -> pb.ListScoresResponse:
        """Return a page of single scores, those of the latest runs first."""
        limit = request.page_size or DEFAULT_PAGE_SIZE
        after = self._page_tokens.read(Listing.SCORES, call.tenant, request.page_token, "page_token")
        if not await self._may_list(call, request.filter.subject_run_id):
            return pb.ListScoresResponse()
        await self._follower.caught_up(call.tenant)
        page = await self._index.read(list_scores, call.tenant, request.filter, limit, after)
        token = self._page_tokens.issue(Listing.SCORES, call.tenant, page.next_position)
        return pb.ListScoresResponse(scores=page.scores, next_page_token=token)

    @checked(pb.QueryScoresRequest)
    async def query_scores(self, request: pb.QueryScoresRequest, call: Caller) -> pb.QueryScoresResponse:
        """Return aggregates of scores by groups."""
        call.principal.require_all_runs()
        percentiles = request.percentiles or _DEFAULT_PERCENTILES
        await self._follower.caught_up(call.tenant)
        groups = await self._index.read(query_scores, call.tenant, request.filter, _grouping_of(request), percentiles)
        response = pb.QueryScoresResponse(groups=groups)
        if response.ByteSize() > _MAX_ANSWER_BYTES:
            raise invalid_field(
                "group_by", "must result in fewer groups, for the response to be sent; narrow the filter"
            )
        return response

    @checked(pb.CompareScoresRequest)
    async def compare_scores(self, request: pb.CompareScoresRequest, call: Caller) -> pb.CompareScoresResponse:
        """Compare the scores of two sides."""
        call.principal.require_all_runs()
        await self._follower.caught_up(call.tenant)
        changes = await self._index.read(
            compare_scores,
            call.tenant,
            request.baseline,
            request.candidate,
            min_count=request.min_count if request.HasField("min_count") else _DEFAULT_MIN_COUNT,
            confidence=request.confidence if request.HasField("confidence") else _DEFAULT_CONFIDENCE,
        )
        response = pb.CompareScoresResponse(changes=changes)
        if response.ByteSize() > _MAX_ANSWER_BYTES:
            raise invalid_field(
                "candidate", "must select scores of fewer names, for the response to be sent; name them"
            )
        return response

    async def _may_list(self, call: Caller, run_id: str) -> bool:
        """Return whether the caller may list the scores of a run; a restricted one lists those of single runs only."""
        if not run_id:
            call.principal.require_all_runs()
        if call.principal.restriction is None:
            return True
        check_readable(call.principal, run_id)
        run = await self._engine.find_run(RunKey(call.tenant, run_id))
        return run is not None and call.principal.restriction.allows(run)


def _grouping_of(request: pb.QueryScoresRequest) -> Grouping:
    """Return the dimensions that a query groups by."""
    dimensions = dict.fromkeys(_DIMENSIONS[dimension] for dimension in request.group_by)
    bucket_ns = request.bucket.ToNanoseconds() if request.HasField("bucket") else 0
    return Grouping(tuple(dimensions), tuple(dict.fromkeys(request.group_by_labels)), bucket_ns)


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
