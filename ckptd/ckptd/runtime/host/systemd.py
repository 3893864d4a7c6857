"""Notifies systemd of the daemon's state (`Type=notify`); does nothing where there is no systemd."""

import contextlib
import os
import socket


def watchdog_s() -> float:
    """Return the seconds within which systemd wants each notification (`WatchdogSec=`); 0 for none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0


def notify_systemd(state: str) -> None:
    """Send a state such as `READY=1` to the socket in NOTIFY_SOCKET, if that is set."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    # Do not stop because the service manager is gone.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)
