"""Addresses as operators write them (`host:port`), and the default paths of socket and state directory."""

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ckptd.runtime.errors import ConfigError

SocketAddress = tuple[Any, ...]
"""An address as `socket.connect` takes it: (ip, port) or (ip, port, flow, scope)."""

RUN_DIRECTORY: Final = Path("/run/ckptd")


@dataclass(slots=True, frozen=True)
class HostPort:
    """A host (a name or an IP address, IPv6 in brackets) and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "HostPort":
        """Parse `host:port`. Raises: ValueError, whose text says what was expected."""
        host, colon, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r} is not host:port (an IPv6 address goes in brackets)")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address; None if it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_wildcard(self) -> bool:
        """True if the host is the wildcard address (0.0.0.0 or ::)."""
        return self.ip is not None and self.ip.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """True if only processes on the same host can reach the address."""
        return self.host == "localhost" or (self.ip is not None and self.ip.is_loopback)


def address_query(host_port: HostPort, family: int) -> dict[str, Any]:
    """Return keyword arguments for `getaddrinfo` so that a socket of `family` can send to its results."""
    flags = socket.AI_V4MAPPED if family == socket.AF_INET6 else 0
    return {
        "host": host_port.host,
        "port": host_port.port,
        "family": family,
        "type": socket.SOCK_STREAM,
        "flags": flags,
    }


def default_socket_path() -> Path:
    """Return where local clients look for the daemon. Keep in step with `ckpt_client.session.address`."""
    if os.access(RUN_DIRECTORY, os.W_OK):
        return RUN_DIRECTORY / "ckptd.sock"
    runtime_directory = os.environ.get("XDG_RUNTIME_DIR")
    if runtime_directory:
        return Path(runtime_directory) / "ckptd" / "ckptd.sock"
    return Path(f"/tmp/ckptd-{os.getuid()}") / "ckptd.sock"


def default_state_directory(cluster: str, node_id: str) -> Path:
    """Return the directory for a node's durable state if `state_dir` is not set.

    Raises: ConfigError if this user has no home directory.
    """
    name = f"{cluster}-{node_id}"
    system = Path("/var/lib")
    if os.geteuid() == 0 and os.access(system, os.W_OK):
        return system / "ckptd" / name
    state_home = os.environ.get("XDG_STATE_HOME")
    if state_home:
        return Path(state_home) / "ckptd" / name
    try:
        return Path.home() / ".local" / "state" / "ckptd" / name
    except RuntimeError:  # In a container: no HOME, and no passwd entry for the user id.
        raise ConfigError(f"user {os.getuid()} does not have a home directory: set state_dir") from None
