"""Ownership: whose a producer or a consumer's lease is, and who may take it over."""

from collections.abc import Callable
from typing import NamedTuple

from lavant.server.errors import ServiceError
from lavant.v1.error_pb2 import ErrorReason

TAKE_OVER_SCOPE = "runs:take-over"


class Owner(NamedTuple):
    """Principal to which belongs what a call makes, by its ID, and whether it may take over what belongs to others.

    What has an owner with an empty ID belongs to nobody: the server itself made it, or a caller without credentials.
    `on_take_over` is called whenever it is decided that it uses what belongs to another one: again if an engine repeats
    the decision, and also if nothing comes of it.
    """

    id: str = ""
    may_take_over: bool = False
    on_take_over: Callable[[], None] | None = None

    def check(self, owner_id: str, name: str, field: str) -> None:
        """Raise PERMISSION_DENIED unless this principal may use what belongs to an owner.

        `name` describes it in the message, `field` is what the caller can choose differently.
        """
        if owner_id in ("", self.id):
            return
        if self.may_take_over:
            if self.on_take_over is not None:
                self.on_take_over()
            return
        raise ServiceError(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            f"{name} belongs to another principal; use another {field}, "
            f"or a credential that has the scope {TAKE_OVER_SCOPE}",
            metadata={"scope": TAKE_OVER_SCOPE},
        )


NOBODY = Owner()
