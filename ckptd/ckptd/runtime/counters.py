"""What went wrong at the edge, counted. It must not know why anybody counts."""

from dataclasses import asdict, dataclass


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

    clients_cut_off: int = 0
    """Connections of clients that took too much of what all share, or too long for a frame."""

    datagrams_dropped: int = 0
    """Received faster than they could be handled, or not sent since the socket was full."""

    strangers_dropped: int = 0
    """Datagrams of unknown senders that came faster than they are let in."""

    datagram_errors: int = 0
    loop_lag_ns_max: int = 0
    """The longest that the event loop was late since its start."""

    quarantine_files: int = 0
    quarantine_bytes: int = 0
    quarantine_failures: int = 0
    """What should have been kept in quarantine and could not be written."""

    persist_failures: int = 0
    """Records that could not be written; the core asked again."""

    fence_runs: int = 0
    register_failures: int = 0
    """Questions to the register outside that had no answer."""

    contained_io: int = 0
    """Exceptions outside of the core that ended one connection or errand: each is a bug of ours."""

    def as_dict(self) -> dict[str, int]:
        """By name, as they are now."""
        return asdict(self)
