"""Every setting of a daemon: its name, what it means, its default and its bounds.

The model knows nothing of where a value comes from: see `config_sources`.
"""

import dataclasses
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ckpt_protocol.limits import CLUSTER_NAME_BYTES_MAX, NODE_ID_BYTES_MAX, NODES_MAX
from ckptd.core.settings import MILLISECOND_NS, Settings
from ckptd.runtime.addresses import HostPort, default_socket_path, default_state_directory

MiB: Final = 1024 * 1024


def _parse_host_port(value: object) -> object:
    return HostPort.parse(value) if isinstance(value, str) else value


def _parse_peers(value: object) -> object:
    """`b=host:port,c=host:port`, or the same as a TOML table."""
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
            raise ValueError(f"node {node_id.strip()!r} stands there twice")
        peers[node_id.strip()] = address
    return peers


def _parse_mode(value: object) -> object:
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            raise ValueError(f"{value!r} is no octal file mode") from None
    return value


def _check_node_id(value: str) -> str:
    if not value or len(value.encode()) > NODE_ID_BYTES_MAX:
        raise ValueError(f"a node id has 1 to {NODE_ID_BYTES_MAX} bytes")
    if not value.isprintable() or any(character in " ,=/" for character in value):
        raise ValueError(f"{value!r} is no node id: no blanks, commas, equals signs or slashes")
    return value


Address = Annotated[HostPort, BeforeValidator(_parse_host_port)]
Milliseconds = Annotated[float, Field(gt=0, le=86_400_000, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=2**31)]
Size = Annotated[int, Field(ge=64 * 1024, le=2**40)]


class Config(BaseModel):
    """One daemon's settings, checked. Times are milliseconds, sizes bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    cluster: str = Field("ckptd", description="the cluster's name; nodes of another one are refused")
    key: str = Field("", repr=False, description="the cluster's key; prefer key_file, since flags show in ps")
    key_file: Path | None = Field(None, description="a file that holds the cluster's key")
    node_id: str = Field(
        default_factory=socket.gethostname, description="this node's name (default: the host's)"
    )
    listen: Address = Field(
        HostPort("127.0.0.1", 7301),
        description="host:port for peers and clients, TCP and UDP; port 0: any free one",
    )
    advertise: Address | None = Field(None, description="host:port that clients elsewhere reach this node by")
    peers: Annotated[dict[str, Address], BeforeValidator(_parse_peers)] = Field(
        default_factory=dict,
        description="the other nodes, b=host:port,c=host:port; an own entry is the `advertise`",
    )
    socket: str = Field("", description="unix socket for local clients; `none`: no such socket")
    socket_mode: Annotated[int, BeforeValidator(_parse_mode), Field(ge=0, le=0o777)] = Field(
        0o600, description="file mode of the unix socket, octal"
    )
    state_dir: Path | None = Field(None, description="where promises and the incarnation are kept")
    arbiter: Literal["", "single", "pair", "majority"] = Field(
        "", description="single, pair or majority (default: by the number of nodes, 1, 2 or more)"
    )
    replicas: int = Field(
        3, ge=1, le=NODES_MAX, description="replicas of a checkpoint that is not collocated"
    )
    trust_rst: bool = Field(
        True, description="a refused connection proves a process dead: one host or one LAN"
    )

    heartbeat_ms: Milliseconds = Field(25, description="between two heartbeats to a peer")
    lease_ms: Milliseconds = Field(600, description="how long an acknowledged heartbeat lets a node serve")
    grace_ms: Milliseconds = Field(
        800, description="silence after which a view without the silent node is sought"
    )
    replica_timeout_ms: Milliseconds = Field(
        600, description="a replica that acknowledges nothing for so long goes"
    )
    session_grace_ms: Milliseconds = Field(
        10_000, description="how long a session outlives its lost connection"
    )
    hold_ms: Milliseconds = Field(
        1_000, description="how long a request waits at a node before it is TRY_AGAIN"
    )
    commit_notice_ms: Milliseconds = Field(
        10, description="an idle active replica tells what is committed after this"
    )
    weak_batch_ms: Milliseconds = Field(5, description="how long changes of a weak checkpoint gather")
    leave_ms: Milliseconds = Field(
        10_000, description="how long a node that was told to stop tries to hand over"
    )

    weak_batch_bytes: Size = Field(256 * 1024, description="a batch of a weak checkpoint")
    chunk_bytes: Size = Field(128 * 1024, description="a chunk that a joining replica is sent")
    chunks_in_flight: Count = Field(4, description="chunks under way to one joining replica")
    log_bytes_max: Size = Field(
        4 * MiB, description="updates kept for replicas that come back, per checkpoint"
    )
    pending_bytes_max: Size = Field(
        64 * MiB, description="unacknowledged updates of a checkpoint; more: TRY_AGAIN"
    )
    checkpoints_max: Count = Field(100_000, description="checkpoints in the cluster")
    sessions_max: Count = Field(100_000, description="sessions in the cluster")
    opens_per_session_max: Count = Field(100_000, description="open handles of one session")
    clients_max: Count = Field(10_000, description="connected clients of this node, UDP included")
    client_buffer_bytes_max: Size = Field(
        256 * MiB, description="unread answers after which a client is cut off"
    )
    peer_buffer_bytes_max: Size = Field(256 * MiB, description="unsent bytes after which a peer is cut off")
    quarantine_bytes_max: Size = Field(1024 * MiB, description="all files in quarantine together")

    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="lines logged"
    )
    uvloop: Literal["auto", "on", "off"] = Field(
        "auto", description="the event loop: uvloop where it is installed"
    )

    # -- one setting by itself

    @field_validator("node_id")
    @classmethod
    def _node_id_is_a_name(cls, value: str) -> str:
        return _check_node_id(value)

    @field_validator("cluster")
    @classmethod
    def _cluster_is_a_name(cls, value: str) -> str:
        if (
            not value
            or len(value.encode()) > CLUSTER_NAME_BYTES_MAX
            or not value.isprintable()
            or "/" in value
        ):
            raise ValueError(
                f"a cluster's name has 1 to {CLUSTER_NAME_BYTES_MAX} printable bytes and no slash"
            )
        return value

    @field_validator("uvloop", mode="before")
    @classmethod
    def _toml_booleans_are_on_and_off(cls, value: object) -> object:
        return ("on" if value else "off") if isinstance(value, bool) else value

    @field_validator("peers")
    @classmethod
    def _peers_have_names_and_ports(cls, value: dict[str, HostPort]) -> dict[str, HostPort]:
        for node_id, address in value.items():
            _check_node_id(node_id)
            if address.port == 0:
                raise ValueError(f"peer {node_id!r} needs a port")
        if len(value) > NODES_MAX:
            raise ValueError(f"a cluster has at most {NODES_MAX} nodes")
        return value

    # -- settings against each other

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.heartbeat_ms < self.lease_ms < self.grace_ms:
            raise ValueError(
                "heartbeat_ms < lease_ms < grace_ms must hold, so that a lease ends before a take-over: "
                f"they are {self.heartbeat_ms:g}, {self.lease_ms:g} and {self.grace_ms:g}"
            )
        if self.key and self.key_file:
            raise ValueError("key and key_file are both set")
        peers = len(self.other_nodes)
        if self.arbiter == "single" and peers:
            raise ValueError("arbiter single is for a node without peers")
        if self.arbiter == "pair" and peers != 1:
            raise ValueError(f"arbiter pair needs exactly one peer, not {peers}")
        if self.arbiter == "majority" and not peers:
            raise ValueError("arbiter majority needs peers")
        return self

    # -- what follows from them

    @property
    def other_nodes(self) -> dict[str, HostPort]:
        """The peers without this node itself: one file may serve every node of a cluster."""
        return {node_id: self.peers[node_id] for node_id in sorted(self.peers) if node_id != self.node_id}

    @property
    def socket_path(self) -> Path | None:
        """Where the unix socket goes, None for none."""
        if self.socket == "none":
            return None
        return Path(self.socket) if self.socket else default_socket_path()

    @property
    def state_path(self) -> Path:
        """Where the state directory is."""
        return self.state_dir or default_state_directory(self.cluster, self.node_id)

    def advertised(self, port: int) -> HostPort:
        """What clients elsewhere are told; `port` is the one that is bound."""
        said = self.advertise or self.peers.get(self.node_id)
        if said is not None:
            return HostPort(said.host, said.port or port)
        return HostPort(socket.gethostname() if self.listen.is_wildcard else self.listen.host, port)

    def settings(self) -> Settings:
        """The core's share."""
        values: dict[str, Any] = {}
        for name in (field.name for field in dataclasses.fields(Settings)):
            if name == "peers":
                values[name] = tuple(self.other_nodes)
            elif name.endswith("_ns"):
                values[name] = round(getattr(self, f"{name[:-3]}_ms") * MILLISECOND_NS)
            else:
                values[name] = getattr(self, name)
        return Settings(**values)


def is_readable_by_others(path: Path) -> bool:
    """Whether a file with a secret can be read by other users."""
    return bool(os.stat(path).st_mode & 0o077)
