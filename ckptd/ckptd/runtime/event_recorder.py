"""Records what a core is told, in an event log that can be replayed (`record_events`)."""

from ckptd import __version__
from ckptd.core.checks.event_log_format import LogHeader, digest_of, pack_entry, pack_event, pack_header
from ckptd.core.events import Effect, Event
from ckptd.core.hub import Limits, Transport
from ckptd.core.make_core import Core
from ckptd.core.settings import Settings
from ckptd.runtime.event_log_writer import EventLogWriter


class EventRecorder:
    """Writes the header, then each event that the driver has the core handle."""

    def __init__(self, writer: EventLogWriter, transport: Transport) -> None:
        self.transport = Transport(transport.urls, self._read_counters, self._read_limits)
        """What the core is made with: it asks through this, so that the log has the answers."""
        self._writer = writer
        self._asked = transport
        self._counts: dict[str, int] | None = None
        self._limits: Limits | None = None

    def begin(
        self, settings: Settings, incarnation: int, record: bytes, now_ns: int, wall_offset_ns: int
    ) -> None:
        """Write the header: the arguments that the core was made with."""
        urls = self.transport.urls
        start = LogHeader(__version__, settings, incarnation, record, now_ns, wall_offset_ns, urls)
        self._writer.write(pack_header(start))
        self._writer.flush()

    def handle(self, node: Core, event: Event, now_ns: int) -> list[Effect]:
        """Have the core handle an event; write both, also if the core raises."""
        packed = self._writer.pack(pack_event, event)
        self._counts = self._limits = None
        try:
            effects = node.handle(event, now_ns)
        except Exception:
            self._write(now_ns, packed, None)
            self._writer.flush()
            raise
        self._write(now_ns, packed, effects)
        return effects

    def _write(self, now_ns: int, packed: bytes, effects: list[Effect] | None) -> None:
        def pack() -> bytes:
            digest = None if effects is None else digest_of(effects)
            return pack_entry(now_ns, packed, digest, self._counts, self._limits)

        self._writer.write(self._writer.pack(pack))

    def _read_counters(self) -> dict[str, int]:
        # The counts are no part of the core's state, so a replay needs them in the log.
        self._counts = self._asked.counters()
        return self._counts

    def _read_limits(self) -> Limits:
        self._limits = self._asked.limits()
        return self._limits
