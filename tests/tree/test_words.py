"""Texts and names follow the glossary."""

from collections import defaultdict

import pytest

from tree.words import Fault, all_faults, banned_parts, duplicates, faults, said

# Areas that have not been rewritten yet, by the beginning of their paths, and the number of faults in each. A number
# only ever falls, and is exact. The last one that fits a path counts; what fits none has no faults.
LEFT = {
    "tests/server/": 0,
}


def area(path: str) -> str:
    """Return the area of a path; "" where none fits."""
    return next((prefix for prefix in reversed(LEFT) if path.startswith(prefix)), "")


def test_texts_and_names_follow_the_glossary() -> None:
    found: dict[str, list[Fault]] = defaultdict(list)
    for fault in all_faults():
        found[area(fault.path)].append(fault)
    more = {prefix: some for prefix, some in found.items() if len(some) > LEFT.get(prefix, 0)}
    fewer = {prefix: len(found[prefix]) for prefix, allowed in LEFT.items() if len(found[prefix]) < allowed}
    assert not fewer, f"fewer faults than LEFT allows; lower its numbers, so that no new fault hides: {fewer}"
    assert not more, "\n".join(
        f"{len(some)} faults in {prefix or 'other files'}, {LEFT.get(prefix, 0)} allowed:\n" + "\n".join(map(str, some))
        for prefix, some in more.items()
    )


@pytest.mark.parametrize(
    "text",
    [
        "What a rule is told.",
        "Readers begin anew.",
        "Continue behind the last event.",
        "A sign of life.",
        "The rule draws runs.",
        "All but the last one.",
        "Look\n    at runs again.",
    ],
)
def test_a_banned_word_is_seen(text: str) -> None:
    assert list(said("a.md", 1, text))


@pytest.mark.parametrize(
    "text",
    [
        "Give up after five attempts.",
        "Replicas behind a load balancer may lag behind.",
        "Takes the place of `client.draw()`, as in lavant.server.told.",
        "A fallback, but a slow one.",
        "```\ntell\n```",
    ],
)
def test_plain_text_passes(text: str) -> None:
    assert not list(said("a.md", 1, text))


@pytest.mark.parametrize("name", ["RuleDesk", "what_is_told", "StreamMeasures", "_drawer"])
def test_a_banned_part_of_a_name_is_seen(name: str) -> None:
    assert banned_parts(name)


@pytest.mark.parametrize("name", ["Desktop", "withdraw", "interface", "measure_time"])
def test_a_plain_name_passes(name: str) -> None:
    assert not banned_parts(name)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("server/a.py", '"""How far it is."""'),
        ("server/a.py", 'class A:\n    def f(self) -> bool:\n        """Whether it is open."""'),
        ("server/a.py", "# Hear of nothing"),
        ("server/a.py", "raise ValueError(f'{value} was not told')"),
        ("server/told.py", ""),
        ("server/a.py", "\n" * 601),
        ("tests/a.py", "def test_what_is_told() -> None: ..."),
        ("docs/a.md", "Readers begin anew."),
        ("protos/a.proto", "// Begins\n// anew.\nmessage A {}"),
        ("server/a.js", 'show("no more room; begin anew");'),
    ],
)
def test_a_fault_of_a_file_is_seen(path: str, source: str) -> None:
    assert list(faults(path, source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("server/a.py", '"""Return how far it is."""'),
        ("server/a.py", 'class A:\n    @property\n    def f(self) -> bool:\n        """Whether it is open."""'),
        ("server/a.py", "QUERY = 'SELECT told FROM desks'"),
        ("tests/a.py", "TEXT = 'Tell me about Oslo.'"),
        ("docs/a.md", "```\nbegin anew\n```"),
        ("server/a.js", "drawChart(); // drawn once"),
    ],
)
def test_a_plain_file_passes(path: str, source: str) -> None:
    assert not list(faults(path, source))


def test_a_class_of_the_name_of_another_is_seen() -> None:
    same = [("server/lavant/server/a.py", "class A: ..."), ("server/lavant/server/b.py", "class A: ...")]
    assert len(list(duplicates(same))) == 2


@pytest.mark.parametrize(
    ("path", "other", "name"),
    [
        ("server/lavant/server/a.py", "server/lavant/server/b.py", "_A"),
        ("server/lavant/server/a.py", "client/lavant/client/a.py", "A"),
        ("server/lavant/server/store/sqlite/a.py", "server/lavant/server/store/jetstream/a.py", "Writer"),
        ("server/lavant/server/errors.py", "client/lavant/client/errors.py", "FieldViolation"),
    ],
)
def test_classes_that_never_meet_may_have_one_name(path: str, other: str, name: str) -> None:
    assert not list(duplicates([(path, f"class {name}: ..."), (other, f"class {name}: ...")]))
