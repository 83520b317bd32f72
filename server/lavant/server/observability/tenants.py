"""The tenants that metrics name: few, the busiest, so that a store of thousands does not have as many time series."""

from collections.abc import Iterable, Mapping

OTHER = "_other"  # no tenant has this name


class NamedTenants:
    """At most `limit` tenants that metrics name, each until the process ends; all others are reported as OTHER."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bases: dict[str, float] = {}  # of the named tenants: what OTHER already contains of their counters
        self._unnamed: Mapping[str, float] = {}  # the counters that OTHER contained at the last report

    def admit(self, tenants: Iterable[str]) -> None:
        """Name tenants, the first ones, as far as there is room."""
        for tenant in tenants:
            if len(self._bases) >= self._limit:
                return
            if tenant not in self._bases:
                self._bases[tenant] = self._unnamed.get(tenant, 0)

    def label(self, tenant: str) -> str:
        """Return the value of the label for a tenant."""
        return tenant if tenant in self._bases else OTHER

    def totals(self, counters: Mapping[str, float]) -> dict[tuple[str, ...], float]:
        """Return counters by label. None of them ever decreases, also when a tenant gets its name late."""
        self._unnamed = {tenant: count for tenant, count in counters.items() if tenant not in self._bases}
        found: dict[tuple[str, ...], float] = {
            (tenant,): counters[tenant] - base for tenant, base in self._bases.items() if tenant in counters
        }
        rest = sum(counters.values()) - sum(found.values())
        if rest:
            found[OTHER,] = rest
        return found
