"""Language models that judge, offline."""

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


class Judge:
    """A model that answers with one verdict, and remembers what it was asked."""

    def __init__(self, verdict: dict[str, object] | str) -> None:
        self.asked: list[str] = []
        self.model = FunctionModel(self._answer, model_name="judge")
        self._verdict = verdict

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        requests = (message for message in messages if isinstance(message, ModelRequest))
        prompts = (part for request in requests for part in request.parts if isinstance(part, UserPromptPart))
        self.asked = [str(prompt.content) for prompt in prompts]
        if isinstance(self._verdict, str):
            return ModelResponse([TextPart(self._verdict)])
        return ModelResponse([ToolCallPart(info.output_tools[0].name, self._verdict)])


def judge_of(score: float, reason: str = "It is cold in Oslo.") -> Judge:
    """Return a judge with this score."""
    return Judge({"reason": reason, "pass": score >= 0.5, "score": score})
