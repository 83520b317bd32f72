"""The base of the values that people read."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Does not change; `model_copy(update=...)` makes another one."""

    model_config = ConfigDict(frozen=True)
