"""The base of the values that people read."""

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

_SCALARS = (str, int, float, datetime, timedelta)


class Frozen(BaseModel):
    """Does not change; `model_copy(update=...)` makes another one."""

    model_config = ConfigDict(frozen=True)

    def __hash__(self) -> int:
        # Decoded JSON cannot be hashed: what can is enough to tell most values apart.
        return hash((type(self), *(value for value in self.__dict__.values() if isinstance(value, _SCALARS))))
