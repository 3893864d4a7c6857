"""Every setting of a daemon: its name, what it means, its default and its bounds.

Rules about several settings together are in `checks`.
"""

import shlex
import socket
import urllib.parse
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ckpt_protocol.limits import CLUSTER_NAME_BYTES_MAX, FRAME_BYTES_MAX, KEY_BYTES_MIN, NODES_MAX
from ckptd.core.settings import Settings
from ckptd.runtime.config.addresses import HostPort
from ckptd.runtime.config.types import (
    Address,
    Addresses,
    Count,
    FileMode,
    MiB,
    Milliseconds,
    Names,
    OptionalPath,
    Portion,
    Size,
    check_node_id,
)


class ConfigFields(BaseModel):
    """One daemon's settings, each checked by itself. Times are in milliseconds, sizes in bytes."""

    # Only `Config` validates, so pydantic need not build a validator for this class too.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    cluster: str = Field("ckptd", description="the name of the cluster; nodes of other clusters are refused")
    key: str = Field("", repr=False, description="the cluster's key; prefer key_file, since flags show in ps")
    key_file: OptionalPath = Field(
        None,
        description=(
            f"a file with the cluster's key, {KEY_BYTES_MIN} bytes or more; other users must not be "
            "able to read it"
        ),
    )
    node_id: str = Field(
        default_factory=lambda: socket.gethostname(),
        validate_default=True,
        description="this node's name (default: the host's)",
    )
    listen: Address = Field(
        HostPort("127.0.0.1", 7301),
        description="host:port for peers and clients, TCP and UDP; port 0: any free one",
    )
    advertise: Address | None = Field(
        None, description="host:port under which clients on other hosts reach this node"
    )
    peers: Addresses = Field(
        default_factory=dict,
        description="the other nodes, b=host:port,c=host:port; the entry for this node sets `advertise`",
    )
    socket: str = Field("", description="unix socket for clients on this host; `none`: no unix socket")
    socket_mode: FileMode = Field(0o600, description="file mode of the unix socket, octal")
    state_dir: OptionalPath = Field(None, description="directory for the node's promises and its incarnation")
    arbiter: Literal["", "single", "pair", "majority", "etcd"] = Field(
        "", description="single, pair, majority or etcd (default: by the number of voters, 1, 2 or more)"
    )
    on_silent_peer: Literal["keep-active", "block", "fence", "promote"] = Field(
        "keep-active",
        description="what a node of a pair does when it receives no heartbeat from the other one",
    )
    fence_hook: str = Field(
        "", description="a command that switches a node off; ckptd adds the node id as the last argument"
    )
    fence_timeout_ms: Milliseconds = Field(10_000, description="time after which the fence hook is killed")
    witness: bool = Field(False, description="this node votes and holds no data")
    witnesses: Names = Field(
        (), description="the nodes that are witnesses, w,x; they are also among the peers"
    )
    replicas: int = Field(
        3, ge=1, le=NODES_MAX, description="number of replicas of a checkpoint that is not collocated"
    )
    trust_rst: bool = Field(
        True,
        description=(
            "treat a refused connection as proof that the process is dead: only on one host or one LAN"
        ),
    )

    heartbeat_ms: Milliseconds = Field(25, description="interval between two heartbeats to a peer")
    lease_ms: Milliseconds = Field(
        600, description="time for which an acknowledged heartbeat lets a node serve"
    )
    grace_ms: Milliseconds = Field(
        800, description="time without a heartbeat after which the others propose a view without the node"
    )
    replica_timeout_ms: Milliseconds = Field(
        600, description="a replica that acknowledges nothing for this time is removed from the view"
    )
    session_grace_ms: Milliseconds = Field(
        10_000, description="time for which a session survives a lost connection"
    )
    hold_ms: Milliseconds = Field(
        1_000, description="time for which a request waits at a node before the answer is TRY_AGAIN"
    )
    commit_notice_ms: Milliseconds = Field(
        10, description="an idle active replica reports the committed position after this time"
    )
    weak_batch_ms: Milliseconds = Field(
        5, description="time for which changes of a weak checkpoint are collected"
    )
    leave_ms: Milliseconds = Field(
        10_000,
        description=(
            "time for which a node that is stopped waits for another node that can take over; the "
            "hand-over may take as long again"
        ),
    )

    weak_batch_bytes: Portion = Field(256 * 1024, description="size of a batch of a weak checkpoint")
    chunk_bytes: Portion = Field(128 * 1024, description="size of a chunk that is sent to a joining replica")
    directory_piece_bytes: Portion = Field(
        512 * 1024, description="size of a piece of the directory that is sent to a joining node"
    )
    chunks_in_flight: Count = Field(4, description="chunks in flight to one joining replica")
    log_bytes_max: Size = Field(
        4 * MiB, description="updates kept per checkpoint for replicas that come back"
    )
    pending_bytes_max: Size = Field(
        64 * MiB, description="unacknowledged updates of a checkpoint; above it the answer is TRY_AGAIN"
    )
    memory_bytes_max: int = Field(
        0,
        ge=0,
        le=2**50,
        description="memory for the replicas of this node; 0: half of what this process may use",
    )
    requests_waiting_max: Count = Field(
        30_000,
        description=(
            "requests that wait at a node for a view or for another node; above it the answer is TRY_AGAIN"
        ),
    )
    requests_waiting_bytes_max: Size = Field(256 * MiB, description="memory for these waiting requests")
    register_probe_ms: Milliseconds = Field(
        2_000, description="interval between two checks that etcd answers"
    )
    etcd_endpoints: Names = Field((), description="URLs of the etcd members, https://e1:2379,https://e2:2379")
    etcd_register: str = Field(
        "", description="the etcd key that holds the view (default: /ckptd/CLUSTER/view)"
    )
    etcd_user: str = Field("", description="user name for etcd, if etcd requires a password")
    etcd_password_file: OptionalPath = Field(None, description="a file that holds the password for etcd")
    etcd_ca_file: OptionalPath = Field(None, description="certificate authority of the etcd certificates")
    etcd_cert_file: OptionalPath = Field(None, description="this node's certificate for etcd, PEM")
    etcd_cert_key_file: OptionalPath = Field(
        None, description="its private key (default: in etcd_cert_file), PEM"
    )
    etcd_timeout_ms: Milliseconds = Field(1_000, description="time limit for one request to one etcd member")
    checkpoints_max: Count = Field(100_000, description="checkpoints in the cluster")
    sessions_max: Count = Field(100_000, description="sessions in the cluster")
    opens_per_session_max: Count = Field(25_000, description="open handles of one session")
    opens_max: Count = Field(1_000_000, description="open handles in the cluster")
    directory_bytes_max: Size = Field(
        512 * MiB, description="memory on every node for names, sessions, open handles and their answers"
    )
    clients_max: Count = Field(10_000, description="connected clients of this node, UDP included")
    client_buffer_bytes_max: Size = Field(
        320 * MiB,
        description="unread answers of all clients; above it the client with the most is cut off",
    )
    client_frames_bytes_max: int = Field(
        320 * MiB,
        ge=FRAME_BYTES_MAX,
        le=2**40,
        description=(
            "unfinished frames of all clients; above it the client that has had most for longest is cut off"
        ),
    )
    frame_timeout_ms: Milliseconds = Field(
        10_000,
        description=(
            "a client has to finish a frame within this time, or send 256 KiB more of it; else it is cut off"
        ),
    )
    share_of_limits: Count = Field(
        4, description="the part of a shared limit that one client may use; 4: a quarter"
    )
    peer_buffer_bytes_max: Size = Field(
        256 * MiB, description="unsent bytes above which the connection to a peer is closed"
    )
    quarantine_bytes_max: Size = Field(1024 * MiB, description="total size of all files in quarantine")

    record_events: OptionalPath = Field(
        None,
        description=(
            "directory for recordings: every event that the core receives is written there, with payload"
        ),
    )
    record_events_bytes_max: Size = Field(
        256 * MiB, description="total size of all recordings in that directory"
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="lowest level of lines to log"
    )
    uvloop: Literal["auto", "on", "off"] = Field(
        "auto", description="event loop; auto: uvloop if it is installed"
    )
    end_with_stdin: bool = Field(
        False,
        description=(
            "end at once, without a hand-over, when standard input (a pipe or a socket) ends: for a "
            "program that starts nodes and must not leave any running"
        ),
    )

    # -- checks of one setting

    @field_validator("node_id")
    @classmethod
    def _node_id_is_a_name(cls, value: str) -> str:
        return check_node_id(value)

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

    @field_validator("socket")
    @classmethod
    def _socket_can_be_named_by_clients(cls, value: str) -> str:
        if "," in value or "\0" in value or value != value.strip():
            raise ValueError(
                f"clients cannot name {value!r} in a list of addresses: remove the commas and the outer "
                "blanks"
            )
        return value

    @field_validator("advertise")
    @classmethod
    def _advertised_is_one_address(cls, value: HostPort | None) -> HostPort | None:
        if value is not None and value.is_wildcard:
            raise ValueError(
                f"clients on other hosts cannot reach {value}: it stands for every address of a host"
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
            check_node_id(node_id)
            if address.port == 0:
                raise ValueError(f"peer {node_id!r} needs a port")
        if len(value) > NODES_MAX:
            raise ValueError(f"a cluster has at most {NODES_MAX} nodes")
        return value

    @field_validator("witnesses")
    @classmethod
    def _witnesses_have_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_node_id(node_id) for node_id in value)

    @field_validator("fence_hook")
    @classmethod
    def _fence_hook_is_a_command(cls, value: str) -> str:
        if value and not shlex.split(value):
            raise ValueError("no program is named")
        return value

    @field_validator("etcd_endpoints")
    @classmethod
    def _endpoints_are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            # Do not quote the URL: it might contain a password.
            url = urllib.parse.urlsplit(text)
            if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
                raise ValueError("an endpoint has to be a URL such as https://host:2379, without a user")
            _ = url.port  # Raises: ValueError.
        return tuple(text.rstrip("/") for text in value)

    # -- the cluster's nodes, as the settings name them

    @property
    def other_nodes(self) -> dict[str, HostPort]:
        """The peers without this node itself. `peers` may list it, as all nodes may use the same file."""
        return {node_id: self.peers[node_id] for node_id in sorted(self.peers) if node_id != self.node_id}

    @property
    def is_witness(self) -> bool:
        """True if this node votes and holds no data: set by `witness`, or by `witnesses` in a shared file."""
        return self.witness or self.node_id in self.witnesses

    @property
    def other_witnesses(self) -> tuple[str, ...]:
        """The peers that vote and hold no data."""
        return tuple(node_id for node_id in self.other_nodes if node_id in self.witnesses)

    @property
    def data_nodes(self) -> tuple[str, ...]:
        """The nodes that hold data, including this one unless it is a witness."""
        others = (node_id for node_id in self.other_nodes if node_id not in self.witnesses)
        return tuple(sorted((*others, *(() if self.is_witness else (self.node_id,)))))

    @property
    def arbiter_name(self) -> str:
        """The arbiter in use: the configured one, or the default for the number of voters."""
        others = tuple(self.other_nodes)
        return Settings(self.node_id, peers=others, arbiter=self.arbiter).arbiter_name
