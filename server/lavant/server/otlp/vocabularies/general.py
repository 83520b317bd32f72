"""Attributes of OpenTelemetry's general conventions, and lavant's own."""

from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning, Vocabulary

GENERAL = Vocabulary(
    name="general",
    attributes={
        Meaning.REQUESTED: ("lavant.run",),
        Meaning.CONVERSATION: ("session.id",),
        Meaning.ERROR_TYPE: ("error.type", "exception.type"),
        Meaning.ERROR_MESSAGE: ("exception.message",),
    },
    events={"exception": EventKind.EXCEPTION},
)
