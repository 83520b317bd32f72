"""Quotas: how much of one server a tenant, or a single principal, may use at a time."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from math import ceil

from lavant.server.auth.principal import Limits, Principal
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError
from lavant.server.metrics import QuotaMetrics
from lavant.v1.error_pb2 import ErrorReason

_MOST_SUBJECTS = 10_000  # whose use is remembered before those that use nothing are forgotten
_RETRY_SECONDS = 1.0  # before a call is repeated that found too many others open: nobody knows when one of them ends


class Quota(StrEnum):
    """A kind of use that is limited, named as the field of `Limits` that limits it."""

    STREAMS = "streams"
    CALLS = "calls"
    EVENTS = "events_per_second"
    BYTES = "bytes_per_second"
    RUNS = "runs_per_second"
    OPEN_RUNS = "open_runs"
    STORED_BYTES = "stored_bytes"


_UNLIMITED = Limits()


RATES = (Quota.EVENTS, Quota.BYTES, Quota.RUNS)


class Bucket:
    """A token bucket that fills at a rate and holds the tokens of one second.

    Whoever comes while it is not overdrawn takes as much as they need, and overdraws it if need be: a batch that is
    larger than the bucket passes all the same, and those that follow wait for it. Not one of the libraries for this:
    per request they take 35 µs (limits, throttled-py) to 400 µs (pyrate-limiter) where this takes less than one, they
    always refuse what is larger than the bucket, and their clocks cannot be passed in.
    """

    __slots__ = ("_full_at", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._full_at = float("-inf")  # the time at which the bucket is full again

    def wait(self, now: float) -> float:
        """Return for how many seconds the bucket is still overdrawn; 0 or less: it is not."""
        return self._full_at - now - 1.0

    def take(self, now: float, amount: float) -> None:
        """Take tokens."""
        self._full_at = max(self._full_at, now) + amount / self._rate

    def is_full(self, now: float) -> bool:
        """Return whether all tokens are there."""
        return self._full_at <= now


class QuotaUse:
    """Use by one subject: a tenant, or a principal with limits of its own."""

    __slots__ = ("buckets", "counts", "limits", "subject")

    def __init__(self, subject: str, limits: Limits) -> None:
        self.subject = subject
        self.limits = limits
        self.counts = {Quota.STREAMS: 0, Quota.CALLS: 0, Quota.OPEN_RUNS: 0}
        rates = (getattr(limits, kind) for kind in RATES)
        self.buckets = [None if rate is None else Bucket(rate) for rate in rates]

    def is_idle(self, now: float) -> bool:
        """Return whether nothing is used, so that it can be forgotten."""
        return not any(self.counts.values()) and all(bucket is None or bucket.is_full(now) for bucket in self.buckets)

    def is_at_limit(self, kind: Quota) -> bool:
        """Return whether no more of a kind may be open."""
        limit = getattr(self.limits, kind)
        return limit is not None and self.counts[kind] >= limit


class _Use:
    """One use of a kind by all subjects of a call, for the length of a `with` block."""

    __slots__ = ("_kind", "_quotas", "_usages")

    def __init__(self, quotas: "Quotas", usages: tuple[QuotaUse, ...], kind: Quota) -> None:
        self._quotas = quotas
        self._usages = usages
        self._kind = kind

    def __enter__(self) -> None:
        self._quotas.check_count(self._usages, self._kind)
        for usage in self._usages:
            usage.counts[self._kind] += 1

    def __exit__(self, *_: object) -> None:
        for usage in self._usages:
            usage.counts[self._kind] -= 1


_FREE: AbstractContextManager[None] = nullcontext()


class Quotas:
    """The use of one server by all tenants, and its limits.

    `limits_of` returns the limits of a tenant; a principal may have limits of its own besides. Each server counts for
    itself: with several servers, a tenant may use as much of each. Raises QUOTA_EXCEEDED, with the subject and with the
    time after which a retry may succeed.
    """

    def __init__(
        self,
        clock: Clock,
        limits_of: Callable[[str], Limits] = lambda _: _UNLIMITED,
        metrics: QuotaMetrics | None = None,
    ) -> None:
        self._clock = clock
        self._limits_of = limits_of
        self._metrics = metrics or QuotaMetrics()
        self._usages: dict[Hashable, QuotaUse | None] = {}  # by tenant, or by what has limits; None: without limits

    def using(self, kind: Quota, principal: Principal) -> AbstractContextManager[None]:
        """Return a block that counts as one stream or call of a principal."""
        usages = self.usages_of(principal)
        return _Use(self, usages, kind) if usages else _FREE

    def check_count(self, usages: tuple[QuotaUse, ...], kind: Quota) -> None:
        """Raise QUOTA_EXCEEDED if one of the subjects has as many of a kind as it may have."""
        for usage in usages:
            if usage.is_at_limit(kind):
                limit = getattr(usage.limits, kind)
                what = f"{limit:,} {kind.replace('_', ' ')}"
                raise self._exceeded(usage, kind, f"has {what} on this server, the most it may have", _RETRY_SECONDS)

    def take(self, usages: tuple[QuotaUse, ...], amounts: tuple[int, int, int]) -> None:
        """Take from all rates of all subjects, or from none and raise QUOTA_EXCEEDED; amounts are in order of RATES."""
        now = self._clock.monotonic()
        for usage in usages:
            for kind, bucket, amount in zip(RATES, usage.buckets, amounts, strict=True):
                if amount and bucket is not None and (wait := bucket.wait(now)) > 0:
                    limit = getattr(usage.limits, kind)
                    what = f"may send {limit:,g} {kind.replace('_', ' ')} to this server"
                    raise self._exceeded(usage, kind, what, wait)
        for usage in usages:
            for bucket, amount in zip(usage.buckets, amounts, strict=True):
                if bucket is not None:
                    bucket.take(now, amount)

    def usages_of(self, principal: Principal) -> tuple[QuotaUse, ...]:
        """Return the use by all subjects with limits that a principal counts for: its tenant, and itself."""
        name = principal.tenant
        usage = self._usages[name] if name in self._usages else self._add(name, f"tenant/{name}", self._limits_of(name))
        if principal.limits is None:
            return () if usage is None else (usage,)
        # With the limits: those of a certificate change with their table, those of a subject from one JWT to the next.
        key = (name, principal.limited_as or principal.credential_id, principal.limits)
        own = self._usages.get(key) or self._add(key, f"principal/{principal.id}", principal.limits)
        return tuple(each for each in (usage, own) if each is not None)

    def check_stored(self, usages: tuple[QuotaUse, ...], stored: int, size: int) -> None:
        """Raise QUOTA_EXCEEDED if a tenant that has stored some bytes may not store more. A retry would not help."""
        for usage in usages:
            limit = usage.limits.stored_bytes
            if limit is not None and stored + size > limit:
                self._metrics.refused[Quota.STORED_BYTES] += 1
                raise ServiceError(
                    ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
                    f"{usage.subject.replace('/', ' ')} has {stored:,} bytes of events, and may store {limit:,}; "
                    "delete runs that have ended, or set a retention",
                    metadata={"quota": Quota.STORED_BYTES, "limit": f"{limit:g}"},
                    resource=usage.subject,
                )

    def _add(self, name: Hashable, subject: str, limits: Limits) -> QuotaUse | None:
        if len(self._usages) >= _MOST_SUBJECTS:
            now = self._clock.monotonic()
            for idle in [key for key, usage in self._usages.items() if usage is None or usage.is_idle(now)]:
                del self._usages[idle]
        self._usages[name] = usage = None if limits == _UNLIMITED else QuotaUse(subject, limits)
        return usage

    def _exceeded(self, usage: QuotaUse, kind: Quota, what: str, wait: float) -> ServiceError:
        self._metrics.refused[kind] += 1
        seconds = ceil(wait * 1_000) / 1_000
        return ServiceError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
            f"{usage.subject.replace('/', ' ')} {what}; retry in {seconds:g} s",
            metadata={"quota": kind, "limit": f"{getattr(usage.limits, kind):g}"},
            retry_after=seconds,
            resource=usage.subject,
        )
