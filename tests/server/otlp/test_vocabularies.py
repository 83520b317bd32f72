"""The tables of vocabularies: what cannot be right is found here, not in a reading."""

import pytest

from lavant.server.otlp.vocabularies import EVENTS, GIVEN, HEAD, VOCABULARIES, WRITTEN, index_of
from lavant.server.otlp.vocabularies.vocabulary import Vocabulary


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.name)
def test_table_names_attributes_once_and_values_in_lower_case(vocabulary: Vocabulary) -> None:
    for names in vocabulary.attributes.values():
        assert len(set(names)) == len(names)
    for kinds in vocabulary.kinds.values():
        assert all(word == word.lower() for word in kinds)
    for prefix in vocabulary.lists:
        assert prefix.endswith(".")
        assert len(prefix) >= HEAD
    if vocabulary.prefix:
        assert all(name.startswith(vocabulary.prefix) for name in (*vocabulary.span_names, *vocabulary.events))


def test_events_have_one_meaning() -> None:
    assert len({*EVENTS, *GIVEN, *WRITTEN}) == len(EVENTS) + len(GIVEN) + len(WRITTEN)


def test_own_names_of_a_vocabulary_mean_nothing_elsewhere() -> None:
    assert "tool_name" in index_of("claude_code.tool").attributes
    assert "tool_name" not in index_of("GET /").attributes
    assert "gen_ai.request.model" in index_of("claude_code.llm_request").attributes
