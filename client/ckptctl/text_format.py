"""Bytes, flags and times as an operator reads and types them: pure functions.

A key or a name is bytes. It is shown as text where it is printable UTF-8, else as
`0x` and its hexadecimal digits; what is shown can be typed back.
"""

import base64
from datetime import UTC, datetime
from typing import Final

from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_SECTION_CORRUPTED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)

HEX_MARK: Final = "0x"
_UPDATE_NAMES: Final = {
    SA_CKPT_WR_ALL_REPLICAS: "WR_ALL_REPLICAS",
    SA_CKPT_WR_ACTIVE_REPLICA: "WR_ACTIVE_REPLICA",
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK: "WR_ACTIVE_REPLICA_WEAK",
}
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def show_bytes(content: bytes) -> str:
    """A key or a name for people, such that `parse_bytes` gives it back."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return HEX_MARK + content.hex()
    return text if text.isprintable() and not text.startswith(HEX_MARK) else HEX_MARK + content.hex()


def parse_bytes(text: str) -> bytes:
    """A key or a name as it was typed: text as UTF-8, or `0x` and hexadecimal digits.

    Raises: ValueError for `0x` and something else.
    """
    if text.startswith(HEX_MARK):
        return bytes.fromhex(text.removeprefix(HEX_MARK))
    return typed_bytes(text)


def typed_bytes(text: str) -> bytes:
    """An argument of the command line as UTF-8; bytes that this locale has no characters for as they came."""
    return text.encode("utf-8", "surrogateescape")


def json_bytes(content: bytes) -> dict[str, str]:
    """A value for JSON: as text where it is UTF-8, always as base64."""
    fields = {"base64": base64.b64encode(content).decode()}
    try:
        return {"text": content.decode(), **fields}
    except UnicodeDecodeError:
        return fields


def show_flags(flags: int) -> str:
    """Creation flags by the names of the specification."""
    name = _UPDATE_NAMES.get(flags & ~SA_CKPT_CHECKPOINT_COLLOCATED, str(flags))
    return f"{name} | COLLOCATED" if flags & SA_CKPT_CHECKPOINT_COLLOCATED else name


def show_duration(duration_ns: int) -> str:
    """A duration, `for ever` included."""
    if duration_ns >= SA_TIME_END:
        return "for ever"
    seconds = duration_ns / 1e9
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1e3:g} ms"


def show_moment(moment_ns: int) -> str:
    """An absolute time, `never` included."""
    if moment_ns >= SA_TIME_END:
        return "never"
    try:
        return datetime.fromtimestamp(moment_ns / 1e9, UTC).isoformat(" ", "milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{moment_ns} ns"


def show_state(state: int) -> str:
    """A section's state."""
    return "CORRUPTED" if state == SA_CKPT_SECTION_CORRUPTED else "VALID"


def show_size(size_bytes: int) -> str:
    """A size in the largest unit that keeps it above one."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
