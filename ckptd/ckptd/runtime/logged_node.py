"""A core whose events are all written to an event log.

A daemon that records wraps its core in `LoggedNode`; a daemon that does not record pays nothing for this.
"""

from collections.abc import Callable

from ckptd import __version__
from ckptd.core.checks.event_log import LogHeader, digest_of, pack_entry, pack_event, pack_header
from ckptd.core.events import Effect, Event
from ckptd.core.operations.resource_usage import Limits, ReadTransportLimits
from ckptd.core.settings import Settings
from ckptd.runtime.driver import CoreNode
from ckptd.runtime.event_log_writer import EventLogWriter


class LoggedNode:
    """The core `node`, with everything that it is told written by `writer`."""

    def __init__(self, node: CoreNode, writer: EventLogWriter) -> None:
        self.urls = node.urls
        self._node = node
        self._writer = writer
        self._read_counts = node.transport_counters
        self._counts: dict[str, int] | None = None
        node.transport_counters = self._report_counts
        self._read_limits = node.transport_limits
        self._limits: Limits | None = None
        node.transport_limits = self._report_limits

    def begin(
        self, settings: Settings, incarnation: int, record: bytes, now_ns: int, wall_offset_ns: int
    ) -> None:
        """Write the header: the arguments that the core was made with."""
        start = LogHeader(__version__, settings, incarnation, record, now_ns, wall_offset_ns, self.urls)
        self._writer.write(pack_header(start))
        self._writer.flush()

    @property
    def transport_counters(self) -> Callable[[], dict[str, int]]:
        """Returns the runtime's counters. The core asks through this object, which logs the answer."""
        return self._report_counts

    @transport_counters.setter
    def transport_counters(self, read: Callable[[], dict[str, int]]) -> None:
        self._read_counts = read

    @property
    def transport_limits(self) -> ReadTransportLimits:
        """Returns how full the runtime's limits are. The core asks through this object as well."""
        return self._report_limits

    @transport_limits.setter
    def transport_limits(self, read: ReadTransportLimits) -> None:
        self._read_limits = read

    @property
    def deadline_ns(self) -> int:
        """When the core is next due for `TimeCame`."""
        return self._node.deadline_ns

    @property
    def turn_due(self) -> bool:
        """True if the core has work left."""
        return self._node.turn_due

    def handle(self, event: Event, now_ns: int, /) -> list[Effect]:
        """Pass an event to the core and log it, also if the core raises."""
        packed = self._writer.pack(pack_event, event)
        self._counts = self._limits = None
        try:
            effects = self._node.handle(event, now_ns)
        except Exception:
            self._write(now_ns, packed, None)
            self._writer.flush()
            raise
        self._write(now_ns, packed, effects)
        return effects

    def last_words(self, now_ns: int, /) -> list[Effect]:
        """Pass on the core's last words; they are not logged."""
        return self._node.last_words(now_ns)

    def _write(self, now_ns: int, packed: bytes, effects: list[Effect] | None) -> None:
        def pack() -> bytes:
            digest = None if effects is None else digest_of(effects)
            return pack_entry(now_ns, packed, digest, self._counts, self._limits)

        self._writer.write(self._writer.pack(pack))

    def _report_counts(self) -> dict[str, int]:
        # The counts are no part of the core's state, so a replay needs them in the log.
        self._counts = self._read_counts()
        return self._counts

    def _report_limits(self) -> Limits:
        self._limits = self._read_limits()
        return self._limits
