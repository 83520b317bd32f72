"""Which finished runs a rule wants: pure decisions, but for the input, which the run's log holds."""

import re
from collections.abc import Callable
from hashlib import sha256

from google.protobuf.duration_pb2 import Duration

from lavant.contract.limits import OWN_RUNS
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Run, RunKind

_HASHES = 1 << 64


class Matcher:
    """Tells what becomes of a finished run, by a rule as it stands.

    `looks_at` is whether it counts as seen at all; `wants` all that the run itself tells; `wants_input` the rest,
    where `needs_input` says so.
    """

    def __init__(self, rule: Rule) -> None:
        wanted = rule.filter
        self.kinds = list(wanted.kinds) or [RunKind.RUN_KIND_AGENT]
        self._filter = wanted
        self._names = [_like(name) for name in wanted.names]
        self._labels = [(key, _like(value)) for key, value in wanted.labels.items()]
        self._states = frozenset(wanted.states)
        self._shortest = _seconds(wanted.min_duration) if wanted.HasField("min_duration") else float("-inf")
        self._longest = _seconds(wanted.max_duration) if wanted.HasField("max_duration") else float("inf")
        self._counts_tokens = wanted.HasField("min_tokens") or wanted.HasField("max_tokens")
        self._times_runs = wanted.HasField("min_duration") or wanted.HasField("max_duration")
        self._output = wanted.output_contains.casefold()
        self._input = wanted.input_contains.casefold()
        self._salt = rule.salt.encode() + b"\0"
        self._below = round(rule.sample_rate * _HASHES) if rule.HasField("sample_rate") else _HASHES

    @property
    def needs_input(self) -> bool:
        """Whether it depends on the run's input."""
        return bool(self._input)

    def looks_at(self, run: Run) -> bool:
        """Tell whether a finished run is the rule's to decide on: never the server's own."""
        return not run.run_id.startswith(OWN_RUNS)

    def wants(self, run: Run) -> bool:
        """Tell whether a finished run is to be judged, as far as the run tells."""
        wanted, result = self._filter, run.result
        if not self._samples(run.run_id):
            return False
        if self._states and run.state not in self._states:
            return False
        if self._names and not any(names(run.name) for names in self._names):
            return False
        if self._labels and not all(key in run.labels and holds(run.labels[key]) for key, holds in self._labels):
            return False
        if wanted.HasField("has_error") and result.HasField("error") != wanted.has_error:
            return False
        if self._times_runs and not self._shortest <= duration_of(run) <= self._longest:
            return False
        if self._counts_tokens and not self._within_tokens(result.usage.input_tokens + result.usage.output_tokens):
            return False
        return not self._output or self._output in result.output_json.casefold()

    def wants_input(self, input_json: str) -> bool:
        """Tell whether the run's input is one that is wanted."""
        return self._input in input_json.casefold()

    def _samples(self, run_id: str) -> bool:
        if self._below >= _HASHES:
            return True
        return int.from_bytes(sha256(self._salt + run_id.encode()).digest()[:8]) < self._below

    def _within_tokens(self, count: int) -> bool:
        wanted = self._filter
        if wanted.HasField("min_tokens") and count < wanted.min_tokens:
            return False
        return not wanted.HasField("max_tokens") or count <= wanted.max_tokens


def duration_of(run: Run) -> float:
    """How long a run took, in seconds: by its result, or from its creation to its end."""
    if run.result.HasField("duration"):
        return _seconds(run.result.duration)
    return (run.end_time.ToNanoseconds() - run.create_time.ToNanoseconds()) / 1e9


def _like(pattern: str) -> Callable[[str], object]:
    """What tells whether a text is like a pattern, in which * stands for any text and ? for any character.

    Whatever the pattern, it takes no longer than the product of their lengths: what lies between two * is found
    where it comes first, and never looked for again further on.
    """
    first, *others = ["".join("." if part == "?" else re.escape(part) for part in some) for some in pattern.split("*")]
    if not others:
        return re.compile(first, re.DOTALL).fullmatch
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL).fullmatch


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
