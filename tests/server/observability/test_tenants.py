"""Names of tenants in metrics are few, and their counters never decrease."""

from lavant.server.observability.tenants import OTHER, NamedTenants


def test_counter_of_a_tenant_that_is_named_late_stays_in_the_rest() -> None:
    named = NamedTenants(2)
    assert named.totals({"a": 1, "b": 5}) == {(OTHER,): 6}
    named.admit(["b"])
    assert named.totals({"a": 1, "b": 7}) == {("b",): 2, (OTHER,): 6}
    named.admit(["c", "a"])
    assert named.totals({"a": 1, "b": 7, "c": 4}) == {("b",): 2, ("c",): 4, (OTHER,): 6}
    assert [named.label(tenant) for tenant in ("a", "b", "c")] == [OTHER, "b", "c"]


def test_without_room_all_tenants_are_the_rest() -> None:
    named = NamedTenants(0)
    named.admit(["a"])
    assert named.totals({"a": 1}) == {(OTHER,): 1}
    assert named.totals({}) == {}
