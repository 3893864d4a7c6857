"""Telling systemd how far we are (`Type=notify`); silent everywhere else."""

import contextlib
import os
import socket


def watchdog_s() -> float:
    """Within what time systemd wants to hear of this process each time (`WatchdogSec=`); 0 for never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0


def notify_systemd(state: str) -> None:
    """Send a state such as `READY=1` to the socket that NOTIFY_SOCKET names, if it does."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    # A service manager that went away is no reason for a daemon to stop.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)
