"""What went wrong at the edge, counted. It must not know why anybody counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Grows only."""

    garbage_streams: int = 0
    """Connections that ended because what came was no frame."""

    garbage_datagrams: int = 0
    refused: int = 0
    """First exchanges that we refused."""

    timed_out: int = 0
    """Connections that never finished the first exchange."""

    datagrams_dropped: int = 0
    """Received faster than they could be handled, or not sent since the socket was full."""

    datagram_errors: int = 0
    loop_lag_ns_max: int = 0
    """The longest that the event loop was late in the last minute or so."""
