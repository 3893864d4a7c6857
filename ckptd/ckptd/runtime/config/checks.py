"""Rules about several settings together. Each returns what is wrong, "" if nothing is."""

from collections.abc import Callable
from typing import Final

from ckptd.runtime.config.fields import ConfigFields
from ckptd.runtime.config.types import key_fault


def _times(config: ConfigFields) -> str:
    if config.heartbeat_ms < config.lease_ms < config.grace_ms:
        return ""
    return (
        "heartbeat_ms < lease_ms < grace_ms must hold, so that a lease ends before another node "
        f"takes over: they are {config.heartbeat_ms:g}, {config.lease_ms:g} and "
        f"{config.grace_ms:g}"
    )


def _key(config: ConfigFields) -> str:
    if config.key and config.key_file:
        return "key and key_file are both set: use one of them"
    # Only this host can reach a node that listens on loopback. There any key is accepted, and so is none.
    fault = "" if config.listen.is_loopback or not config.key else key_fault(config.key.encode())
    return f"key: {fault}" if fault else ""


def _addresses(config: ConfigFields) -> str:
    """Every node needs an address of its own, because the node that answers at a peer's address is that peer.

    (See ADR 17.)
    """
    taken = {str(config.listen): "this node itself (listen)"} if config.listen.port else {}
    if config.advertise is not None and config.advertise.port:
        taken[str(config.advertise)] = "this node itself (advertise)"
    for node_id, address in config.other_nodes.items():
        other = taken.get(str(address))
        if other is not None:
            return f"peers gives node {node_id!r} the address {address}, but that is the address of {other}"
        taken[str(address)] = f"node {node_id!r}"
    return ""


def _witnesses(config: ConfigFields) -> str:
    known = {config.node_id, *config.peers}
    unknown = [node_id for node_id in config.witnesses if node_id not in known]
    if unknown:
        return f"witnesses names {unknown[0]!r}, which is not one of the peers"
    if not config.data_nodes:
        return "all nodes in peers are witnesses: one of them has to hold data"
    if (config.is_witness or config.other_witnesses) and config.arbiter_name != "majority":
        return (
            f"a witness votes only under arbiter majority, but the arbiter is {config.arbiter_name} "
            f"with {len(config.other_nodes) + 1} voters"
        )
    return ""


def _arbiter(config: ConfigFields) -> str:
    others, data_nodes = len(config.other_nodes), len(config.data_nodes)
    match config.arbiter:
        case "single" if others:
            return "arbiter single is for a node without peers, but peers is set"
        case "pair" if data_nodes != 2:
            return f"arbiter pair needs two data nodes, this one and one peer, but there are {data_nodes}"
        case "majority" if not others:
            return "arbiter majority needs peers"
    return ""


def _silent_peer(config: ConfigFields) -> str:
    answer = config.on_silent_peer
    if answer != "keep-active" and config.arbiter_name != "pair":
        return f"on_silent_peer {answer} is for arbiter pair, but the arbiter is {config.arbiter_name}"
    if answer == "fence" and not config.fence_hook:
        return "on_silent_peer fence needs a fence_hook"
    return ""


def _etcd(config: ConfigFields) -> str:
    if config.arbiter != "etcd":
        return "etcd_endpoints is set, but it is for arbiter etcd" if config.etcd_endpoints else ""
    if not config.etcd_endpoints:
        return "arbiter etcd needs etcd_endpoints"
    if bool(config.etcd_user) != bool(config.etcd_password_file):
        return "etcd_user and etcd_password_file belong together: set both"
    if config.etcd_cert_key_file and not config.etcd_cert_file:
        return "etcd_cert_key_file is set, but etcd_cert_file is not"
    plain = [url for url in config.etcd_endpoints if not url.startswith("https://")]
    if plain and (config.etcd_ca_file or config.etcd_cert_file):
        return f"etcd_ca_file and etcd_cert_file are for https endpoints, but {plain[0]} is not one"
    return ""


RULES: Final[tuple[Callable[[ConfigFields], str], ...]] = (
    _times,
    _key,
    _addresses,
    _arbiter,
    _witnesses,
    _silent_peer,
    _etcd,
)
