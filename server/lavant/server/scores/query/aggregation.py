"""Aggregates of scores, by groups and over time."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from lavant.server.errors import invalid_field
from lavant.server.scores.index.intake import DAY, HOUR, Series
from lavant.server.scores.index.tally import Tally
from lavant.server.scores.query.filters import TimeRange, find_series, time_range
from lavant.server.store.reads import check_caller
from lavant.v1.score_service_pb2 import ScoreFilter, ScoreGroup

MAX_GROUPS = 10_000
_MAX_SINGLE = 1_000_000  # scores that may be read one by one: a second's work or two
_MOST_FREQUENT = 100  # classes of a group
_NANOS = 1_000_000_000

# Starts from the wanted series, so that the cost depends only on these series in this window.
_TALLIES = """SELECT tallies.series, tallies.start, tallies.tally FROM json_each(?) AS wanted
    CROSS JOIN tallies ON tallies.series = wanted.value AND span = ? AND start >= ? AND start < ?"""
_SINGLE = """SELECT scores.series, time_ns, kind, scores.value, class FROM json_each(?) AS wanted
    CROSS JOIN scores INDEXED BY scores_by_series ON scores.series = wanted.value AND time_ns >= ? AND time_ns < ?
    LIMIT ?"""
_OF_SUBJECT = """SELECT scores.series, time_ns, kind, scores.value, class FROM scores INDEXED BY scores_by_subject
    WHERE tenant = ? AND subject = ? AND time_ns >= ? AND time_ns < ?
        AND scores.series IN (SELECT value FROM json_each(?))
    LIMIT ?"""

Values = tuple[str | None, ...]


class Group(NamedTuple):
    """A group: when its bucket begins, in nanoseconds, its values of what is grouped by, and its tally."""

    start_ns: int
    values: Values
    tally: Tally


class Grouping(NamedTuple):
    """Dimensions that scores are grouped by: fields of Series, keys of labels, and buckets of time; 0: one bucket."""

    dimensions: Sequence[str] = ()
    labels: Sequence[str] = ()
    bucket_ns: int = 0

    def values_of(self, series: Series) -> Values:
        """Return a series' values of what is grouped by; None: it has no such label."""
        fields = [getattr(series, name) for name in self.dimensions]
        if not self.labels:
            return tuple(fields)
        labels: Mapping[str, str] = json.loads(series.labels)
        return (*fields, *map(labels.get, self.labels))


def aggregate(connection: apsw.Connection, tenant: str, wanted: ScoreFilter, grouping: Grouping) -> list[Group]:
    """Aggregate scores by groups, in the order of time, then of what they are grouped by.

    Whole days and hours come from stored tallies. Failures of evaluators that return verdicts count as not passed.
    Raises INVALID_FIELD if there are too many groups, or too many scores between whole hours.
    """
    series = dict(find_series(connection, tenant, wanted))
    values = {number: grouping.values_of(one) for number, one in series.items()}
    parts: list[tuple[int, int, Tally]] = []
    groups: defaultdict[tuple[int, Values], Tally] = defaultdict(Tally)
    for number, start_ns, tally in _parts(connection, tenant, wanted, list(series), grouping.bucket_ns):
        check_caller()
        parts.append((number, start_ns, tally))
        _ = groups[start_ns, values[number]]
        if len(groups) > MAX_GROUPS:
            raise invalid_field(
                "bucket" if grouping.bucket_ns else "group_by",
                f"must result in at most {MAX_GROUPS:,} groups; narrow the filter, or group by less",
            )
    verdicts = _names_of_verdicts((series[number], tally) for number, _, tally in parts)
    for number, start_ns, tally in parts:
        check_caller()
        if _name_of(series[number]) in verdicts:
            tally.count_errors_as_unpassed()
        groups[start_ns, values[number]].merge(tally)
    order = sorted(groups, key=lambda group: (group[0], [(value is not None, value or "") for value in group[1]]))
    return [Group(*key, groups[key]) for key in order]


def query_scores(
    connection: apsw.Connection, tenant: str, wanted: ScoreFilter, grouping: Grouping, percentiles: Sequence[float]
) -> list[ScoreGroup]:
    """Return aggregates as the contract's messages; raises INVALID_FIELD as `aggregate` does."""
    messages: list[ScoreGroup] = []
    for group in aggregate(connection, tenant, wanted, grouping):
        check_caller()
        messages.append(_message(group, grouping, percentiles))
    return messages


def directions(connection: apsw.Connection, tenant: str, wanted: ScoreFilter) -> dict[str, bool]:
    """Return, by score's name, whether a higher value is better, as far as the wanted scores say.

    Where series of one name differ, the newest one decides.
    """
    found = sorted(find_series(connection, tenant, wanted))
    return {series.name: bool(series.direction) for _, series in found if series.direction >= 0}


def _name_of(series: Series) -> tuple[str, str]:
    return series.rule_id, series.name


def _names_of_verdicts(parts: Iterable[tuple[Series, Tally]]) -> set[tuple[str, str]]:
    """Return the names, each of a rule, whose values are all verdicts: a failure itself does not show its kind."""
    values, verdicts = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for series, tally in parts:
        values[_name_of(series)] += tally.values
        verdicts[_name_of(series)] += tally.verdicts
    return {name for name, count in verdicts.items() if count and count == values[name]}


def _parts(
    connection: apsw.Connection, tenant: str, wanted: ScoreFilter, series: Sequence[int], bucket_ns: int
) -> Iterator[tuple[int, int, Tally]]:
    """Yield the tallies of series, each with when its bucket begins."""
    window, numbers = time_range(wanted), json.dumps(series)
    room = _MAX_SINGLE
    if wanted.subject_run_id:
        rows: Any = connection.execute(_OF_SUBJECT, (tenant, wanted.subject_run_id, *window, numbers, room + 1))
        yield from _gather(rows, bucket_ns, room)
        return
    for span, part in _plan(window, [span for span in (DAY, HOUR) if bucket_ns % (span * _NANOS) == 0]):
        if span:
            seconds = (part.start_ns // _NANOS, part.end_ns // _NANOS)
            stored: Any = connection.execute(_TALLIES, (numbers, span, *seconds))
            for number, start, tally in stored:
                yield number, _bucket(start * _NANOS, bucket_ns), Tally.decode(tally)
        else:
            for found in _gather(connection.execute(_SINGLE, (numbers, *part, room + 1)), bucket_ns, room):
                room -= found[2].count
                yield found


def _gather(rows: Any, bucket_ns: int, room: int) -> Iterator[tuple[int, int, Tally]]:
    """Aggregate single scores; raises INVALID_FIELD if there are more than `room`."""
    gathered: defaultdict[tuple[int, int], list[tuple[int, float | None, str]]] = defaultdict(list)
    for count, (number, time_ns, *result) in enumerate(rows):
        if count == room:
            raise invalid_field(
                "filter",
                f"must mean at most {_MAX_SINGLE:,} scores that are not in whole hours of UTC; "
                "narrow it, or let times and buckets be whole hours",
            )
        gathered[number, _bucket(time_ns, bucket_ns)].append(result)
    for key, results in gathered.items():
        tally = Tally()
        tally.add_all(results)
        yield *key, tally


def _plan(window: TimeRange, spans: Sequence[int]) -> Iterator[tuple[int, TimeRange]]:
    """Split a window into parts made of whole spans, the largest first, and the rest (0)."""
    start, end = window
    if start >= end:
        return
    if not spans:
        yield 0, window
        return
    span_ns = spans[0] * _NANOS
    whole = TimeRange(-(-start // span_ns) * span_ns, end // span_ns * span_ns)
    if whole.start_ns >= whole.end_ns:
        yield from _plan(window, spans[1:])
        return
    yield from _plan(TimeRange(start, whole.start_ns), spans[1:])
    yield spans[0], whole
    yield from _plan(TimeRange(whole.end_ns, end), spans[1:])


def _bucket(time_ns: int, bucket_ns: int) -> int:
    return time_ns // bucket_ns * bucket_ns if bucket_ns else 0


def _message(group: Group, grouping: Grouping, percentiles: Sequence[float]) -> ScoreGroup:
    tally = group.tally
    message = ScoreGroup(
        count=tally.count,
        error_count=tally.errors,
        error_rate=tally.error_rate or 0.0,
        mean=tally.mean if tally.values else None,
        standard_deviation=tally.deviation,
        pass_rate=tally.passes / tally.verdicts if tally.verdicts else None,
        percentiles=tally.percentiles(percentiles),
        label_counts=dict(sorted(tally.classes.items(), key=lambda item: (-item[1], item[0]))[:_MOST_FREQUENT]),
    )
    if grouping.bucket_ns:
        message.start_time.FromNanoseconds(group.start_ns)
    fields = len(grouping.dimensions)
    for name, value in zip(grouping.dimensions, group.values, strict=False):
        setattr(message, name, value)
    for key, value in zip(grouping.labels, group.values[fields:], strict=True):
        if value is not None:
            message.labels[key] = value
    return message
