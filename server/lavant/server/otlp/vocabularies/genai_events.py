"""The events of OpenTelemetry's GenAI semantic conventions up to 1.36: one per message, of a span or in the logs."""

from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning, Vocabulary

GENAI_EVENTS = Vocabulary(
    name="genai-events",
    attributes={Meaning.EVENTS: ("events",)},
    events={"gen_ai.content.prompt": EventKind.DETAILS, "gen_ai.content.completion": EventKind.DETAILS},
    given={
        "gen_ai.system.message": "system",
        "gen_ai.user.message": "user",
        "gen_ai.assistant.message": "assistant",
        "gen_ai.tool.message": "tool",
    },
    written={"gen_ai.choice": "assistant"},
)
