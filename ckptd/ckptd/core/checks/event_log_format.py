"""The recording of a node's events, in a form that can be replayed.

A recording is a header (`pack_header`) and one entry per event: the time, the event, a digest of its
effects, and the counts and limits that the core asked the runtime for during the event. The core is
deterministic, so the same events have the same effects: a recording of a daemon in the field can be
replayed on a desk. The code is generic over the event types: a new type needs no change here.
"""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame
from ckptd.core.events import Effect, Event
from ckptd.core.hub import Limits
from ckptd.core.settings import Settings

FORMAT: Final = 1


class RecordingError(Exception):
    """A file that is no recording, or has events that this version does not know."""


@dataclass(slots=True, frozen=True)
class LogHeader:
    """The arguments that a core was made with, and the version of `ckptd`."""

    version: str
    settings: Settings
    incarnation: int
    record: bytes
    now_ns: int
    wall_offset_ns: int
    urls: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class LoggedEvent:
    """One event, and what came of it."""

    now_ns: int
    event: Event
    digest: int | None
    """None if the core raised."""
    counts: dict[str, int] | None
    """None if the core did not ask for them; so are `limits`."""
    limits: Limits | None = None


# -- writing


def pack_header(start: LogHeader) -> bytes:
    """Pack the header."""
    return pack_body({"format": FORMAT, **dataclasses.asdict(start)})


def pack_event(event: Event) -> bytes:
    """Pack the event of an entry; call this before the core handles the event."""
    kind = type(event)
    return pack_body([kind.__name__, [getattr(event, name) for name in _names_of(kind)]])


def pack_entry(
    now_ns: int, event: bytes, digest: int | None, counts: dict[str, int] | None, limits: Limits | None = None
) -> bytes:
    """Pack an entry; `event` was packed by `pack_event`."""
    return pack_body([now_ns, event, digest, counts, limits])


def digest_of(effects: list[Effect]) -> int:
    """Return a checksum of all effects and their content, in order."""
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


def parse_header(content: Any) -> LogHeader:
    """Read the unpacked header, without settings that this version lacks. Raises: RecordingError."""
    try:
        if content["format"] != FORMAT:
            raise RecordingError(
                f"the recording has format {content['format']}; this version reads format {FORMAT}"
            )
        known = {field.name for field in dataclasses.fields(Settings)}
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content["settings"].items()
            if name in known
        }
        values = {name: content[name] for name in _names_of(LogHeader)}
        return LogHeader(**{**values, "settings": Settings(**settings), "urls": tuple(content["urls"])})
    except (LookupError, TypeError, AttributeError) as error:
        raise RecordingError(f"the file does not start with the header of a recording: {error!r}") from None


def parse_entry(content: Any, unpack: Callable[[bytes], Any]) -> LoggedEvent:
    """Read an entry whose event is still packed. Raises: RecordingError."""
    try:
        now_ns, packed, digest, counts, *later = content
        name, values = unpack(packed)
        kind = _KINDS[name]
        hints = typing.get_type_hints(kind)
        fields = [_as(hints[field], value) for field, value in zip(_names_of(kind), values, strict=True)]
        limits = later[0] if later else None
        rows = {name: (used, most) for name, (used, most) in limits.items()} if limits is not None else None
        return LoggedEvent(now_ns, kind(*fields), digest, counts, rows)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"an entry was written by another version: {error!r}") from None


_KINDS: Final[dict[str, Any]] = {kind.__name__: kind for kind in typing.get_args(Event)}


def _as(hint: Any, value: Any) -> Any:
    """Return a value in the type that the event has: msgpack knows neither tuples nor frames."""
    if hint is Frame:
        return Frame(*value)
    if typing.get_origin(hint) is list:
        return [_as(typing.get_args(hint)[0], item) for item in value]
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    return value
