"""Read protobuf messages from their wire format, and name the fields of CEL's syntax tree.

The library shows no syntax tree, only `cel.expr.CheckedExpr` as bytes (cel-spec, proto/cel/expr).
"""

from functools import lru_cache

CHECKED_EXPR, TYPE_MAP = 4, 3
ID, CONST, IDENT, SELECT, CALL, LIST, STRUCT, COMPREHENSION = 2, 3, 4, 5, 6, 7, 8, 9
CONST_STRING, CONST_BYTES = 6, 7
INDEX = {"_[_]", "_[?_]", "_?._"}

Message = dict[int, list[bytes | int]]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


@lru_cache(maxsize=1024)
def fields(data: bytes) -> Message:
    """The fields of one message, to be read only: the walks below come by each several times."""
    message: Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: bytes | int
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        message.setdefault(tag >> 3, []).append(value)
    return message


def sub(message: Message, field: int) -> Message | None:
    values = message.get(field)
    return fields(values[0]) if values and isinstance(values[0], bytes) else None


def subs(message: Message, field: int) -> list[Message]:
    return [fields(value) for value in message.get(field, []) if isinstance(value, bytes)]


def text(message: Message, field: int) -> str:
    values = message.get(field)
    return values[0].decode() if values and isinstance(values[0], bytes) else ""


def number(message: Message, field: int) -> int:
    values = message.get(field)
    return values[0] if values and isinstance(values[0], int) else 0
