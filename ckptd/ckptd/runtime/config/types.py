"""The types of settings: how a value is written in a flag, a variable or a TOML file, and its bounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from ckpt_protocol.limits import KEY_BYTES_MIN, NODE_ID_BYTES_MAX, PORTION_BYTES_MAX
from ckptd.runtime.config.addresses import HostPort

MiB: Final = 1024 * 1024


def _parse_host_port(value: object) -> object:
    return HostPort.parse(value) if isinstance(value, str) else value


def _parse_peers(value: object) -> object:
    """Parse `b=host:port,c=host:port`; a TOML table is returned unchanged."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, str):
        raise ValueError("expected b=host:port,c=host:port or a table")
    peers: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        node_id, equals, address = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not node=host:port")
        if node_id.strip() in peers:
            raise ValueError(f"node {node_id.strip()!r} is listed twice")
        peers[node_id.strip()] = address
    return peers


def _parse_list(value: object) -> object:
    """Parse `w,x`, or a TOML array."""
    if isinstance(value, str):
        return tuple(filter(None, (part.strip() for part in value.split(","))))
    return tuple(value) if isinstance(value, list) else value


def _parse_mode(value: object) -> object:
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            raise ValueError(f"{value!r} is not an octal file mode") from None
    return value


def _parse_optional(value: object) -> object:
    return None if value == "" else value


def check_node_id(value: str) -> str:
    """Return a node id unchanged. Raises: ValueError if it is not a valid one."""
    if not value or len(value.encode()) > NODE_ID_BYTES_MAX:
        raise ValueError(f"a node id has 1 to {NODE_ID_BYTES_MAX} bytes")
    if not value.isprintable() or any(character in " ,=/" for character in value):
        raise ValueError(
            f"{value!r} is not a node id: it may not contain blanks, commas, equals signs or slashes"
        )
    return value


def key_fault(key: bytes) -> str:
    """Return why `key` cannot be a cluster's key; "" if it can."""
    if len(key) >= KEY_BYTES_MIN:
        return ""
    return (
        f"a cluster's key has {KEY_BYTES_MIN} bytes or more: make one with head -c 32 /dev/urandom | base64"
    )


Address = Annotated[HostPort, BeforeValidator(_parse_host_port)]
Addresses = Annotated[dict[str, Address], BeforeValidator(_parse_peers)]
Names = Annotated[tuple[str, ...], BeforeValidator(_parse_list)]
OptionalPath = Annotated[Path | None, BeforeValidator(_parse_optional)]
FileMode = Annotated[int, BeforeValidator(_parse_mode), Field(ge=0, le=0o777)]
Milliseconds = Annotated[float, Field(gt=0, le=86_400_000, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=2**31)]
Size = Annotated[int, Field(ge=64 * 1024, le=2**40)]
Portion = Annotated[int, Field(ge=64 * 1024, le=PORTION_BYTES_MAX)]
