"""Codecs: how a typed table's values become the bytes of its sections.

    orders = Table[Order]("orders", 100, 4096, 32, codec=codecs.pydantic(Order))
    orders["42"] = Order(item="tea", count=3)      # JSON in the section
    orders["42"].count                             # 3, and type checkers know that it is an int

    json                JSON: a tuple comes back as a list, a number that is a key as text
    msgpack             smaller, and has bytes and keys of any type; a tuple comes back as a list
    text                text as UTF-8
    pydantic(Order)     JSON that is checked against a type, which `orders["42"]` then has

A codec is any object with `encode` and `decode`. Those of this module never run code that is found in the
data (none uses pickle), so a program may read what another one has written.
"""

import json as _json
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # Of the type checker: it comes with its stubs.

    V = TypeVar("V", default=bytes)
else:
    from typing import TypeVar

    V = TypeVar("V")

Object = TypeVar("Object")


class Codec(Protocol[V]):
    """Makes bytes of values, and values of bytes. Whatever either raises is reported with key and reason."""

    def encode(self, value: V, /) -> bytes:
        """Return the bytes of a value."""

    def decode(self, data: bytes, /) -> V:
        """Return the value of these bytes."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


class _Json:
    """JSON as UTF-8. It knows no NaN and no infinity, which other languages do not read."""

    def __init__(self) -> None:
        # Made once: `dumps` and `loads` would make them anew for each value.
        self._to_text = _json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
        self._from_text = _json.JSONDecoder(parse_constant=_refuse_constant).decode

    def encode(self, value: Any, /) -> bytes:
        return self._to_text(value).encode()

    def decode(self, data: bytes, /) -> Any:
        return self._from_text(data.decode())


class _Msgpack:
    """msgpack: numbers, text, bytes, lists and dicts. A tuple comes back as a list, except as a key."""

    def encode(self, value: Any, /) -> bytes:
        from msgpack import packb

        packed: bytes = packb(value)
        return packed

    def decode(self, data: bytes, /) -> Any:
        from msgpack import unpackb

        try:
            return unpackb(data, strict_map_key=False)
        except TypeError:  # A list cannot be a key, so this one was a tuple. There seldom are any.
            return unpackb(data, strict_map_key=False, object_pairs_hook=_with_tuples_as_keys)


def _with_tuples_as_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_hashable(key): value for key, value in pairs}


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


class _Text:
    """Text as UTF-8."""

    def encode(self, value: str, /) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"it must be text, not {type(value).__name__}")
        return value.encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()


json: Final[Codec[Any]] = _Json()
"""JSON. `json.encode(value)` raises what `json.dumps` raises."""

msgpack: Final[Codec[Any]] = _Msgpack()
"""msgpack, which is smaller than JSON, and has bytes."""

text: Final[Codec[str]] = _Text()
"""Text as UTF-8."""


class _Pydantic(Codec[Object]):
    """JSON that is checked against a type.

    What is written is read again at once: a model whose field was assigned something else since, or whose
    JSON has other names than its constructor takes, would be stored and never be readable.
    """

    def __init__(self, model: type[Object]) -> None:
        from pydantic import TypeAdapter

        adapter = TypeAdapter(model)
        self._check = adapter.validate_python
        self._dump = adapter.dump_json
        self._load = adapter.validate_json

    def encode(self, value: Object, /) -> bytes:
        self._check(value, strict=True)
        data = self._dump(value, by_alias=True)  # As `decode` expects it.
        self._load(data)
        return data

    def decode(self, data: bytes, /) -> Object:
        return self._load(data)


def pydantic(model: type[Object]) -> Codec[Object]:
    """Return a codec that keeps values of a type as JSON, and checks them with pydantic in both directions.

    `model`: a pydantic model, a dataclass, a TypedDict, `list[int]`: whatever `pydantic.TypeAdapter` takes.
    Raises: ImportError if pydantic is not installed (`pip install 'ckptd[pydantic]'`).
    """
    return _Pydantic(model)
