"""Addresses of daemons: `unix:///path`, `tcp://host:port` or `udp://host:port`, and which ones to use.

This module parses addresses and looks for the local default socket; it opens no connection.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ckpt_client.errors import SaAisError, error_of
from ckpt_protocol import codes

ADDRESS_VARIABLE: Final = "CKPTD_ADDRESS"
KEY_VARIABLE: Final = "CKPTD_KEY"
ADDRESSES_MAX: Final = 256
UNIX_PATH_BYTES_MAX: Final = 103
"""`sun_path` less its NUL on macOS (104), which is shorter than on Linux (108)."""

_SYSTEM_SOCKET: Final = "/run/ckptd/ckptd.sock"


@dataclass(slots=True, frozen=True)
class Address:
    """The address of one daemon."""

    scheme: str
    """unix, tcp or udp."""

    host: str
    """The host, or the path of a unix socket."""

    port: int = 0
    """The port; 0 for a unix socket."""

    private: bool = field(default=False, compare=False)
    """True if the socket's folder must be this user's: it is a usual place below /tmp, where anyone can make
    one."""

    @property
    def datagram(self) -> bool:
        """True if each frame travels in a datagram of its own."""
        return self.scheme == "udp"

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Parse one address from its URL.

    Raises: SaAisError INVALID_PARAM.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme not in ("unix", "tcp", "udp"):
        raise _bad(url, "an address must be unix:///path, tcp://host:port or udp://host:port")
    if scheme == "unix":
        if not rest.startswith("/") or "\0" in rest:
            raise _bad(url, "the path of a unix socket must be absolute")
        if len(os.fsencode(rest)) > UNIX_PATH_BYTES_MAX:
            raise _bad(url, f"the path of a unix socket may have at most {UNIX_PATH_BYTES_MAX} bytes")
        return Address("unix", rest)
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise _bad(url, "a host and a port from 1 to 65535 are needed")
    return Address(scheme, host, int(port))


def _bad(url: str, why: str) -> SaAisError:
    return error_of(codes.INVALID_PARAM, f"address {url!r}: {why}")


def parse_addresses(urls: str | Iterable[str]) -> tuple[Address, ...]:
    """Parse addresses from a comma-separated text or from several texts; return them in order, each once.

    Raises: SaAisError INVALID_PARAM.
    """
    texts = [urls] if isinstance(urls, str) else list(urls)
    if not all(isinstance(text, str) for text in texts):
        raise error_of(codes.INVALID_PARAM, "an address must be text")
    parts = [part for text in texts for part in text.split(",") if part.strip()]
    addresses = tuple(dict.fromkeys(parse_address(part) for part in parts))
    if not 0 < len(addresses) <= ADDRESSES_MAX:
        raise error_of(
            codes.INVALID_PARAM, f"1 to {ADDRESSES_MAX} addresses are needed, not {len(addresses)}"
        )
    return addresses


def _default_paths() -> list[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    paths = [_SYSTEM_SOCKET]
    if runtime.startswith("/"):
        paths.append(os.path.join(runtime, "ckptd", "ckptd.sock"))
    paths.append(f"/tmp/ckptd-{os.getuid()}/ckptd.sock")
    return paths


def _is_ours(path: str) -> bool:
    """Return True if a socket exists and, below /tmp, where anyone can put one, this user owns its folder."""
    if not os.path.exists(path):
        return False
    return not path.startswith("/tmp/") or os.lstat(os.path.dirname(path)).st_uid == os.getuid()


def check_owner(address: Address) -> None:
    """Check, right before connecting, that a private socket's folder is this user's.

    A client that waits for its daemon would otherwise take the first socket that another user puts there.
    Raises: OSError.
    """
    if address.private and os.lstat(os.path.dirname(address.host)).st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "its folder belongs to another user")


def default_addresses() -> tuple[Address, ...]:
    """Return the local daemon's sockets that exist; if none does, all places where one could be."""
    paths = _default_paths()
    found = [path for path in paths if _is_ours(path)]
    return tuple(Address("unix", path, private=path.startswith("/tmp/")) for path in found or paths)


def default_address() -> str:
    """Return the URL of the local daemon's socket: the first usual place that exists, else the first one."""
    return str(default_addresses()[0])


def choose_addresses(address: str | Iterable[str] | None) -> tuple[Address, ...]:
    """Return the addresses that the program gave, else those of `CKPTD_ADDRESS`, else the default socket's.

    Raises: SaAisError INVALID_PARAM.
    """
    if address is None:
        address = os.environ.get(ADDRESS_VARIABLE, "")
        if not address.strip():
            return default_addresses()
    return parse_addresses(address)


def is_given(address: str | Iterable[str] | None) -> bool:
    """Return True if the program or `CKPTD_ADDRESS` names addresses, False for the default socket."""
    return address is not None or bool(os.environ.get(ADDRESS_VARIABLE, "").strip())


def choose_key(key: str | bytes | None) -> bytes:
    """Return the cluster's key that the program gave, else that of `CKPTD_KEY`, else b"". Text is UTF-8.

    Raises: SaAisError INVALID_PARAM.
    """
    if key is None:
        key = os.environ.get(KEY_VARIABLE, "")
    if not isinstance(key, str | bytes | bytearray):
        raise error_of(
            codes.INVALID_PARAM, f"a cluster's key must be text or bytes, not {type(key).__name__}"
        )
    return key.encode() if isinstance(key, str) else bytes(key)
