"""Telling systemd how far we are (`Type=notify`); silent everywhere else."""

import contextlib
import os
import socket


def notify_systemd(state: str) -> None:
    """Send a state such as `READY=1` to the socket that NOTIFY_SOCKET names, if it does."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    # A service manager that went away is no reason for a daemon to stop.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)
