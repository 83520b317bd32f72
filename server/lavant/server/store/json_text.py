"""JSON that travels as text: every field of an event whose name ends in `_json`."""

from typing import NamedTuple, Union

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from pydantic_core import from_json

from lavant.server.errors import invalid_field
from lavant.server.model import MAX_BATCH_BYTES


class JsonField(NamedTuple):
    """A field that is JSON text, or a message that holds such fields."""

    name: str
    repeated: bool
    inside: Union["JsonFields", None]


JsonFields = tuple[JsonField, ...]


def json_fields(message_type: Descriptor) -> JsonFields:
    """Find the JSON texts in a type of message that does not contain itself."""
    found: list[JsonField] = []
    for field in message_type.fields:
        if field.message_type is None:
            if field.name.endswith("_json"):
                found.append(JsonField(field.name, False, None))
        elif inside := json_fields(field.message_type):
            found.append(JsonField(field.name, field.is_repeated, inside))
    return tuple(found)


def check_json(path: str, message: Message, fields: JsonFields) -> None:
    """Raise INVALID_FIELD unless all JSON texts in a message are valid; an empty one is."""
    for name, repeated, inside in fields:
        if inside is None:
            _check_text(f"{path}.{name}", getattr(message, name))
        elif repeated:
            for index, item in enumerate(getattr(message, name)):
                check_json(f"{path}.{name}[{index}]", item, inside)
        elif message.HasField(name):
            check_json(f"{path}.{name}", getattr(message, name), inside)


def _check_text(path: str, text: str) -> None:
    if not text or len(text) > MAX_BATCH_BYTES:  # its batch is refused as too large
        return
    try:
        from_json(text, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        raise invalid_field(path, "must be empty or valid JSON; NaN and Infinity are not JSON") from None
