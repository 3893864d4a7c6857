"""What a node was told, in a form that can be told to it again.

A recording is a header (`pack_start`) and then one entry for each event: the time, the
event, a digest of the effects it had, and the counts and limits the core asked its surroundings
for meanwhile. The core is deterministic, so the same events have the same effects; a
recording of a daemon in the field replays on a desk. Generic over the event types: a new
one needs nothing here.
"""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame
from ckptd.core.events import Effect, Event
from ckptd.core.operations.resource_usage import Limits
from ckptd.core.settings import Settings

FORMAT: Final = 1


class RecordingError(Exception):
    """A recording that is none, or one of events that this version does not know."""


@dataclass(slots=True, frozen=True)
class Start:
    """What a core was made with, and by which version of `ckptd`."""

    version: str
    settings: Settings
    incarnation: int
    record: bytes
    now_ns: int
    wall_offset_ns: int
    urls: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Entry:
    """One event. `digest` is None where the core raised; `counts` and `limits` where it asked for none."""

    now_ns: int
    event: Event
    digest: int | None
    counts: dict[str, int] | None
    limits: Limits | None = None


# -- writing


def pack_start(start: Start) -> bytes:
    """The header."""
    return pack_body({"format": FORMAT, **dataclasses.asdict(start)})


def pack_event(event: Event) -> bytes:
    """An event's share of its entry; to be taken before the core has it."""
    kind = type(event)
    return pack_body([kind.__name__, [getattr(event, name) for name in _names_of(kind)]])


def pack_entry(
    now_ns: int, event: bytes, digest: int | None, counts: dict[str, int] | None, limits: Limits | None = None
) -> bytes:
    """An entry, of an event that `pack_event` packed."""
    return pack_body([now_ns, event, digest, counts, limits])


def digest_of(effects: list[Effect]) -> int:
    """Of everything that the effects say, in order."""
    checksum = 0
    for effect in effects:
        kind = type(effect)
        checksum = crc32(kind.__name__.encode(), checksum)
        for name in _names_of(kind):
            value = getattr(effect, name)
            is_bytes = type(value) is bytes
            content = value if is_bytes else repr(value).encode()
            checksum = crc32(content, crc32(b"%d %d:" % (is_bytes, len(content)), checksum))
    return checksum


_names: Final[dict[type, tuple[str, ...]]] = {}


def _names_of(kind: type) -> tuple[str, ...]:
    names = _names.get(kind)
    if names is None:
        names = _names[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return names


# -- reading


def read_start(content: Any) -> Start:
    """The header, unpacked. Settings that this version does not have are left out. Raises: RecordingError."""
    try:
        if content["format"] != FORMAT:
            raise RecordingError(f"a recording of format {content['format']}, not {FORMAT}")
        known = {field.name for field in dataclasses.fields(Settings)}
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content["settings"].items()
            if name in known
        }
        values = {name: content[name] for name in _names_of(Start)}
        return Start(**{**values, "settings": Settings(**settings), "urls": tuple(content["urls"])})
    except (LookupError, TypeError, AttributeError) as error:
        raise RecordingError(f"it does not begin with a recording's header: {error!r}") from None


def read_entry(content: Any, unpack: Callable[[bytes], Any]) -> Entry:
    """An entry, unpacked but for its event. Raises: RecordingError."""
    try:
        now_ns, packed, digest, counts, *later = content
        name, values = unpack(packed)
        kind = _KINDS[name]
        hints = typing.get_type_hints(kind)
        fields = [_as(hints[field], value) for field, value in zip(_names_of(kind), values, strict=True)]
        limits = later[0] if later else None
        rows = {name: (used, most) for name, (used, most) in limits.items()} if limits is not None else None
        return Entry(now_ns, kind(*fields), digest, counts, rows)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"an entry of another version: {error!r}") from None


_KINDS: Final[dict[str, Any]] = {kind.__name__: kind for kind in typing.get_args(Event)}


def _as(hint: Any, value: Any) -> Any:
    """A value as the event has it: msgpack knows neither tuples nor frames."""
    if hint is Frame:
        return Frame(*value)
    if typing.get_origin(hint) is list:
        return [_as(typing.get_args(hint)[0], item) for item in value]
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    return value
