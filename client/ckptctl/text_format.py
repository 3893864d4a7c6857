"""Bytes, flags and times as an operator reads and types them: pure functions.

A key or a name is bytes. It is shown as text if it is printable UTF-8, else as `0x` and its
hexadecimal digits. What is shown can be typed back.
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
    """Return a key or a name for people, such that `parse_bytes` returns the same bytes."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return HEX_MARK + content.hex()
    return text if text.isprintable() and not text.startswith(HEX_MARK) else HEX_MARK + content.hex()


def show_text(text: str) -> str:
    """Return text that others chose, with escapes for what a terminal may take for a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parse_bytes(text: str) -> bytes:
    """Return the key or name that was typed, as UTF-8 text or as `0x` and hexadecimal digits.

    Raises: ValueError for `0x` and anything but hexadecimal digits.
    """
    if text.startswith(HEX_MARK):
        return bytes.fromhex(text.removeprefix(HEX_MARK))
    return typed_bytes(text)


def typed_bytes(text: str) -> bytes:
    """Return a command-line argument as UTF-8; bytes that this locale cannot decode stay as they are."""
    return text.encode("utf-8", "surrogateescape")


def json_bytes(content: bytes) -> dict[str, str]:
    """Return a value for JSON: always as base64, and also as text if it is UTF-8."""
    fields = {"base64": base64.b64encode(content).decode()}
    try:
        return {"text": content.decode(), **fields}
    except UnicodeDecodeError:
        return fields


def show_flags(flags: int) -> str:
    """Return creation flags by the names in the specification."""
    name = _UPDATE_NAMES.get(flags & ~SA_CKPT_CHECKPOINT_COLLOCATED, str(flags))
    return f"{name} | COLLOCATED" if flags & SA_CKPT_CHECKPOINT_COLLOCATED else name


def show_duration(duration_ns: int) -> str:
    """Return a duration as text; `for ever` is one."""
    if duration_ns >= SA_TIME_END:
        return "for ever"
    seconds = duration_ns / 1e9
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds * 1e3:g} ms"


def parse_duration(text: str) -> float:
    """Return the seconds of a duration as it is typed: `5s`, `500ms`, `2min`, `1h`, or a number of seconds.

    Raises: ValueError.
    """
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    seconds = {"": 1.0, "ms": 1e-3, **dict(_UNITS)}.get(text[len(digits) :])
    if seconds is None:
        raise ValueError(f"{text!r} is no duration")
    return float(digits) * seconds


def show_moment(moment_ns: int) -> str:
    """Return an absolute time as text; `never` is one."""
    if moment_ns >= SA_TIME_END:
        return "never"
    try:
        return datetime.fromtimestamp(moment_ns / 1e9, UTC).isoformat(" ", "milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{moment_ns} ns"


def show_state(state: int) -> str:
    """Return a section's state as text."""
    return "CORRUPTED" if state == SA_CKPT_SECTION_CORRUPTED else "VALID"


def show_size(size_bytes: int) -> str:
    """Return a size as text, in the largest unit that keeps it above one."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
