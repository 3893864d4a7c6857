"""The trace: every event that a node handled, with a digest of the effects that it asked for.

Two runs of one seed must give the same trace, byte for byte, in any process and under any hash seed. They are
compared by the digest of all lines.
"""

from hashlib import blake2b
from typing import TextIO
from zlib import crc32

from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.messages import Kind
from ckptd.core import events
from ckptd.core.events import Effect, Event

KIND_NAMES = {number: name for name, number in vars(Kind).items() if name.isupper()}


class Trace:
    """Digests every line, and writes the lines too if it has a file."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._digest = blake2b(digest_size=16)
        self._file = file
        self.lines = 0

    @property
    def digest(self) -> str:
        """The digest of all lines so far."""
        return self._digest.hexdigest()

    def note(self, now_ns: int, who: str, text: str) -> None:
        """Add one line."""
        self.lines += 1
        line = f"{now_ns} {who} {text}\n"
        self._digest.update(line.encode())
        if self._file is not None:
            self._file.write(line)

    def handled(self, now_ns: int, node_id: str, event: Event, effects: list[Effect]) -> None:
        """Add one event and the effects that it asked for."""
        checksum = 0
        for effect in effects:
            checksum = crc32(_essence(effect), checksum)
        text = f"{describe_event(event)} -> {len(effects)} {checksum:08x}"
        self.note(now_ns, node_id, text)
        if self._file is not None:
            for effect in effects:
                self._file.write(f"    {describe_effect(effect)}\n")


class NoTrace(Trace):
    """A trace that digests nothing. A sweep does not use the digest, which takes a tenth of the time."""

    def note(self, now_ns: int, who: str, text: str) -> None:
        """Do nothing."""

    def handled(self, now_ns: int, node_id: str, event: Event, effects: list[Effect]) -> None:
        """Do nothing."""


def describe_event(event: Event) -> str:
    """Describe an event in one line: its frames by kind and numbers, their bodies by checksum."""
    match event:
        case events.ClientReceived(link, frames):
            return f"ClientReceived {link} {describe_frames(frames)}"
        case events.PeerReceived(node_id, frames):
            return f"PeerReceived {node_id} {describe_frames(frames)}"
        case events.HeartbeatReceived(frame, authentic):
            not_authentic = "" if authentic else "not authentic "
            return f"HeartbeatReceived {not_authentic}{describe_frames([frame])}"
        case _:
            return repr(event)


def describe_frames(frames: list[Frame]) -> str:
    """Describe frames by kind, numbers and the checksum of the body."""
    return " ".join(
        f"{KIND_NAMES.get(kind, kind)}({a:x},{b:x},{c:x},{len(body)}:{crc32(body):08x})"
        for kind, a, b, c, body in frames
    )


def describe_effect(effect: Effect) -> str:
    """Describe an effect in one line."""
    match effect:
        case events.SendClient(link, data):
            return f"SendClient {link} {_describe_data(data)}"
        case events.SendPeer(node_id, data):
            return f"SendPeer {node_id} {_describe_data(data)}"
        case events.SendHeartbeat(node_id, data):
            return f"SendHeartbeat {node_id} {_describe_data(data)}"
        case events.Persist(record, number):
            return f"Persist {number} {len(record)}:{crc32(record):08x}"
        case events.Quarantine(name, content):
            return f"Quarantine {name!r} {len(content)}:{crc32(content):08x}"
        case _:
            return repr(effect)


def _describe_data(data: bytes) -> str:
    return describe_frames(FrameDecoder().feed(data))


def _essence(effect: Effect) -> bytes:
    match effect:
        case events.SendClient(link, data):
            return b"c%d " % link + data
        case events.SendPeer(node_id, data) | events.SendHeartbeat(node_id, data):
            return node_id.encode() + data
        case events.Persist(record, number):
            return b"p%d " % number + record
        case _:
            return repr(effect).encode()
