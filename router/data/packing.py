"""Frozen dataclasses of arrays and plain values as bytes, and back: what a checkpoint holds.

One npz archive, the plain values as JSON within it. Nothing in it can run code when it is read.
"""

from __future__ import annotations

import io
import json
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

_PLAIN: Final = "plain"


def pack(value: Any) -> bytes:
    """Arrays keep their dtype; tuples and mappings may hold plain values and further dataclasses."""
    arrays: dict[str, np.typing.NDArray[Any]] = {}
    plain = _taken(value, "", arrays)
    out = io.BytesIO()
    named: dict[str, Any] = {_PLAIN: np.array(json.dumps(plain)), **arrays}
    np.savez_compressed(out, **named)
    return out.getvalue()


def unpack(shape: type[T], content: bytes) -> T:
    """Raises ValueError where the bytes are not what `pack` made of such a value."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            plain = json.loads(str(archive[_PLAIN]))
            found: T = _given(shape, plain, archive)
    except Exception as error:  # errors of broken bytes have no other base
        raise ValueError(f"found bytes that are no {shape.__name__}: {error}") from error
    return found


def _taken(value: Any, at: str, arrays: dict[str, np.typing.NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[at] = value
        return None
    if is_dataclass(value):
        return {
            one.name: _taken(getattr(value, one.name), f"{at}.{one.name}", arrays) for one in fields(value)
        }
    if isinstance(value, tuple | list):
        return [_taken(one, f"{at}.{i}", arrays) for i, one in enumerate(value)]
    if isinstance(value, dict):
        return {key: _taken(one, f"{at}.{key}", arrays) for key, one in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _given(shape: Any, plain: Any, archive: Any, at: str = "") -> Any:
    origin = get_origin(shape)
    if origin in (Union, UnionType):
        if plain is None and at not in archive and NoneType in get_args(shape):
            return None
        (shape,) = [one for one in get_args(shape) if one is not NoneType]
        return _given(shape, plain, archive, at)
    if origin is np.ndarray or shape is np.ndarray:
        return archive[at]
    if is_dataclass(shape):
        hints = get_type_hints(shape)
        held = {
            one.name: _given(hints[one.name], plain.get(one.name), archive, f"{at}.{one.name}")
            for one in fields(shape)
            if one.name in plain
        }
        return shape(**held)  # type: ignore[operator]
    if origin is tuple:
        kinds = get_args(shape)
        kind = [kinds[0]] * len(plain) if kinds[-1] is Ellipsis else kinds
        return tuple(
            _given(k, one, archive, f"{at}.{i}") for i, (k, one) in enumerate(zip(kind, plain, strict=False))
        )
    if origin is dict:
        kind = get_args(shape)[1]
        return {key: _given(kind, one, archive, f"{at}.{key}") for key, one in plain.items()}
    return plain
