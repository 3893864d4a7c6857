"""Counters of what went wrong in the runtime. This module must not know what the counts are used for."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Counters, which only grow."""

    garbage_streams: int = 0
    """Connections that were closed because the other end sent something that is no valid frame."""

    garbage_datagrams: int = 0
    refused: int = 0
    """Handshakes and connections that we refused."""

    timed_out: int = 0
    """Connections that did not finish the handshake in time."""

    clients_cut_off: int = 0
    """Clients that we cut off because they used too much of a shared limit, or took too long for a frame."""

    datagrams_dropped: int = 0
    """Datagrams received faster than we could handle them, or not sent because the socket was full."""

    strangers_dropped: int = 0
    """Datagrams from addresses of no known peer or client, above the rate at which we admit them."""

    datagram_errors: int = 0
    loop_lag_ns_max: int = 0
    """The longest delay of the event loop since the daemon started."""

    quarantine_files: int = 0
    quarantine_bytes: int = 0
    quarantine_failures: int = 0
    """Files that should have gone to quarantine but could not be written."""

    persist_failures: int = 0
    """Records that could not be written; the core asks for them again."""

    fence_runs: int = 0
    register_failures: int = 0
    """Requests to the external register that got no answer."""

    contained_io: int = 0
    """Exceptions outside the core that ended one connection or background task. Each is a bug of ours."""

    def as_dict(self) -> dict[str, int]:
        """Return the current counts by name."""
        return asdict(self)
