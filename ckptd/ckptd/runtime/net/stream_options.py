"""Socket options for TCP connections."""

import asyncio
import contextlib
import socket
from typing import Final

_KEEPALIVE_IDLE_S: Final = 1
_KEEPALIVE_INTERVAL_S: Final = 1
_KEEPALIVE_PROBES: Final = 3
_CLIENT_KEEPALIVE_IDLE_S: Final = 30
_PEER_UNACKNOWLEDGED_MS: Final = 5000


def prepare_stream(transport: asyncio.Transport, is_peer: bool = False) -> None:
    """Have small frames sent at once, and a host that vanishes without a word noticed.

    Between peers this takes seconds. Otherwise the link to a host that lost power would look up until
    TCP gives up, and no node would dial that host when it is back.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    tcp_options = {
        "TCP_NODELAY": 1,
        "TCP_KEEPIDLE": _KEEPALIVE_IDLE_S if is_peer else _CLIENT_KEEPALIVE_IDLE_S,
        "TCP_KEEPINTVL": _KEEPALIVE_INTERVAL_S,
        "TCP_KEEPCNT": _KEEPALIVE_PROBES,
    }
    if is_peer:
        tcp_options["TCP_USER_TIMEOUT"] = _PEER_UNACKNOWLEDGED_MS
    # macOS reports here that the other side is gone already; `connection_lost` handles that.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in tcp_options.items():
            # Skip the options that this system does not have.
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
