"""What scores add up to, by groups and over time."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from lavant.server.errors import invalid_field
from lavant.server.scores.intake import DAY, HOUR
from lavant.server.scores.rows import Series
from lavant.server.scores.selection import Window, find_series, window_of
from lavant.server.scores.tally import Tally
from lavant.v1.score_service_pb2 import ScoreFilter

MAX_GROUPS = 10_000
_MAX_SINGLE = 1_000_000  # scores that may be read one by one: a second's work or two
_NANOS = 1_000_000_000

# From the wanted series outwards: the cost is that of these series in this window, whatever else there is.
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
    """A group: when its bucket begins, in nanoseconds, its values of what is grouped by, and what it adds up to."""

    start_ns: int
    values: Values
    tally: Tally


class Grouping(NamedTuple):
    """What scores are grouped by: fields of Series, keys of labels, and stretches of time; 0: all of it."""

    dimensions: Sequence[str] = ()
    labels: Sequence[str] = ()
    bucket_ns: int = 0

    def values_of(self, series: Series) -> Values:
        """What a series has of what is grouped by; None: no such label."""
        fields = [getattr(series, name) for name in self.dimensions]
        if not self.labels:
            return tuple(fields)
        labels: Mapping[str, str] = json.loads(series.labels)
        return (*fields, *map(labels.get, self.labels))


def add_up(connection: apsw.Connection, tenant: str, wanted: ScoreFilter, grouping: Grouping) -> list[Group]:
    """Add up scores by groups, in the order of time, then of what they are grouped by.

    Whole days and hours come from what was added up before. Failures of what gives verdicts count as not passed.
    Raises INVALID_FIELD if there are too many groups, or too many scores between whole hours.
    """
    series = dict(find_series(connection, tenant, wanted))
    values = {number: grouping.values_of(one) for number, one in series.items()}
    parts: list[tuple[int, int, Tally]] = []
    groups: defaultdict[tuple[int, Values], Tally] = defaultdict(Tally)
    for number, start_ns, tally in _parts(connection, tenant, wanted, list(series), grouping.bucket_ns):
        parts.append((number, start_ns, tally))
        _ = groups[start_ns, values[number]]
        if len(groups) > MAX_GROUPS:
            raise invalid_field(
                "bucket" if grouping.bucket_ns else "group_by",
                f"must give at most {MAX_GROUPS:,} groups; narrow the filter, or group by less",
            )
    verdicts = _names_of_verdicts((series[number], tally) for number, _, tally in parts)
    for number, start_ns, tally in parts:
        if _name_of(series[number]) in verdicts:
            tally.count_errors_as_unpassed()
        groups[start_ns, values[number]].merge(tally)
    order = sorted(groups, key=lambda group: (group[0], [(value is not None, value or "") for value in group[1]]))
    return [Group(*place, groups[place]) for place in order]


def _name_of(series: Series) -> tuple[str, str]:
    return series.rule_id, series.name


def _names_of_verdicts(parts: Iterable[tuple[Series, Tally]]) -> set[tuple[str, str]]:
    """The names, each of a rule, all of whose values are verdicts: a failure itself does not tell what it would be."""
    values, verdicts = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for series, tally in parts:
        values[_name_of(series)] += tally.values
        verdicts[_name_of(series)] += tally.verdicts
    return {name for name, count in verdicts.items() if count and count == values[name]}


def _parts(
    connection: apsw.Connection, tenant: str, wanted: ScoreFilter, series: Sequence[int], bucket_ns: int
) -> Iterator[tuple[int, int, Tally]]:
    """The tallies of series, each with when its bucket begins."""
    window, numbers = window_of(wanted), json.dumps(series)
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
    """Add up single scores; raises INVALID_FIELD if there are more than there is room for."""
    gathered: defaultdict[tuple[int, int], list[tuple[int, float | None, str]]] = defaultdict(list)
    for looked_at, (number, time_ns, *said) in enumerate(rows):
        if looked_at == room:
            raise invalid_field(
                "filter",
                f"must mean at most {_MAX_SINGLE:,} scores that are not in whole hours of UTC; "
                "narrow it, or let times and buckets be whole hours",
            )
        gathered[number, _bucket(time_ns, bucket_ns)].append(said)
    for place, said in gathered.items():
        tally = Tally()
        tally.add_all(said)
        yield *place, tally


def _plan(window: Window, spans: Sequence[int]) -> Iterator[tuple[int, Window]]:
    """Cut a window into parts that are made of whole spans, the largest first, and those that are not (0)."""
    start, end = window
    if start >= end:
        return
    if not spans:
        yield 0, window
        return
    span_ns = spans[0] * _NANOS
    whole = Window(-(-start // span_ns) * span_ns, end // span_ns * span_ns)
    if whole.start_ns >= whole.end_ns:
        yield from _plan(window, spans[1:])
        return
    yield from _plan(Window(start, whole.start_ns), spans[1:])
    yield spans[0], whole
    yield from _plan(Window(whole.end_ns, end), spans[1:])


def _bucket(time_ns: int, bucket_ns: int) -> int:
    return time_ns // bucket_ns * bucket_ns if bucket_ns else 0
