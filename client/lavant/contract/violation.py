"""A value that the contract does not allow."""


class Violation(Exception):
    """A field that breaks a rule: `path` within the request, such as `batch.events[3].event_id`, and the rule."""

    def __init__(self, path: str, description: str) -> None:
        super().__init__(f"{path}: {description}")
        self.path = path
        self.description = description


class TooManyOpen(Violation):
    """A run has as many steps, messages, tool calls or inputs open as the contract allows."""

    def __init__(self, path: str, kind: str, limit: int) -> None:
        name = kind.replace("_", " ")
        super().__init__(path, f"the run has {limit} {name} that are not finished; finish some, or start another run")
        self.kind = kind
        self.limit = limit
