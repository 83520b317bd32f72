"""Decisions on which finished runs a rule evaluates. No I/O: callers read a run's input from its log."""

import re
from collections.abc import Callable
from hashlib import sha256

from lavant.contract.limits import OWN_RUNS
from lavant.contract.values import seconds_of
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Run, RunKind

_HASHES = 1 << 64


class Matcher:
    """Decides whether a rule evaluates a finished run, by the rule's settings.

    `examines` is whether the run counts as examined at all; `wants` covers all settings that the run itself answers;
    `wants_input` covers the rest, if `needs_input` is true.
    """

    def __init__(self, rule: Rule) -> None:
        wanted = rule.filter
        self.kinds = list(wanted.kinds) or [RunKind.RUN_KIND_AGENT]
        self._filter = wanted
        self._names = [_like(name) for name in wanted.names]
        self._labels = [(key, _like(value)) for key, value in wanted.labels.items()]
        self._states = frozenset(wanted.states)
        self._shortest = seconds_of(wanted.min_duration) if wanted.HasField("min_duration") else float("-inf")
        self._longest = seconds_of(wanted.max_duration) if wanted.HasField("max_duration") else float("inf")
        self._counts_tokens = wanted.HasField("min_tokens") or wanted.HasField("max_tokens")
        self._times_runs = wanted.HasField("min_duration") or wanted.HasField("max_duration")
        self._output = wanted.output_contains.casefold()
        self._input = wanted.input_contains.casefold()
        self._salt = rule.salt.encode() + b"\0"
        self._below = round(rule.sample_rate * _HASHES) if rule.HasField("sample_rate") else _HASHES

    @property
    def needs_input(self) -> bool:
        """Whether the decision depends on the run's input."""
        return bool(self._input)

    def examines(self, run: Run) -> bool:
        """Return whether a finished run counts as examined: never a system run."""
        return not run.run_id.startswith(OWN_RUNS)

    def wants(self, run: Run) -> bool:
        """Return whether a finished run is to be evaluated, as far as the run itself shows."""
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
        """Return whether the run's input matches."""
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
    """Return how long a run took, in seconds: by its result, or from its creation to its end."""
    if run.result.HasField("duration"):
        return seconds_of(run.result.duration)
    return (run.end_time.ToNanoseconds() - run.create_time.ToNanoseconds()) / 1e9


def _like(pattern: str) -> Callable[[str], object]:
    """Return a predicate that matches texts with a pattern, in which * stands for any text and ? for any character.

    It takes at most time proportional to the product of their lengths, whatever the pattern: the text between two * is
    matched at its first occurrence, without backtracking.
    """
    first, *others = ["".join("." if part == "?" else re.escape(part) for part in some) for some in pattern.split("*")]
    if not others:
        return re.compile(first, re.DOTALL).fullmatch
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL).fullmatch
