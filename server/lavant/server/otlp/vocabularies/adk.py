"""Google's Agent Development Kit, beside what it writes by the GenAI conventions."""

from lavant.server.otlp.vocabularies.vocabulary import Meaning, Vocabulary

ADK = Vocabulary(
    name="adk",
    attributes={
        Meaning.CONVERSATION: ("gcp.vertex.agent.session_id",),
        Meaning.INPUT: ("gcp.vertex.agent.llm_request",),
        Meaning.MESSAGES: ("gcp.vertex.agent.llm_response",),
        Meaning.ARGUMENTS: ("gcp.vertex.agent.tool_call_args",),
        Meaning.RESULT: ("gcp.vertex.agent.tool_response",),
    },
)
