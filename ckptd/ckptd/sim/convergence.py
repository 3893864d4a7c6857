"""What must be true of the whole cluster once faults have stopped."""

from ckptd.core.checks.invariants import broken_invariants, comparable_content, version_of
from ckptd.core.node import Node
from ckptd.sim.cluster import Cluster


def why_not_converged(cluster: Cluster) -> str:
    """Return why the cluster has not converged yet; "" if it has."""
    nodes = cluster.nodes()
    return (
        _nodes_differ(cluster, nodes)
        or _clients_wait(cluster)
        or next(
            (
                text
                for text in (_replicas_differ(cluster, nodes, cid) for cid in nodes[0].directory.checkpoints)
                if text
            ),
            "",
        )
    )


def _nodes_differ(cluster: Cluster, nodes: list[Node]) -> str:
    if len(nodes) < len(cluster.hosts):
        return "not all nodes are running"
    if cluster.fencing.running:
        return f"a fence hook may still cut the power of {cluster.fencing.running[0]}"
    first = nodes[0]
    for host in cluster.hosts.values():
        node = host.node
        assert node is not None
        if node.view is None:
            return f"{host.node_id} has no view: waits for {node.reconfiguration.waiting_for}"
        if len(node.view.members) < len(cluster.hosts):
            members = ", ".join(node.view.members)
            return f"{host.node_id} is in a view of {members}: {node.reconfiguration.waiting_for}"
        if not node.serving(host.local_ns):
            return f"{host.node_id} does not serve: {node.reconfiguration.waiting_for}"
        assert first.view is not None
        if node.view.epoch != first.view.epoch:
            return (
                f"{host.node_id} is in epoch {node.view.epoch}, but {first.context.node_id} is in "
                f"{first.view.epoch}"
            )
        if (node.directory.seq, node.replicator.in_flight) != (first.directory.seq, None):
            return f"the directory of {host.node_id} is at {node.directory.seq}, not {first.directory.seq}"
        if node.directory.snapshot(0)[2:3] and _shape(node) != _shape(first):
            return f"the directory of {host.node_id} differs from that of {first.context.node_id}"
    return ""


def _shape(node: Node) -> object:
    """Return all of a directory except its times."""
    _, _, checkpoints, sessions, _ = node.directory.snapshot(0)
    # (If a directory arrived in pieces, the order of a checkpoint's opens is not the order of their
    # sessions.)
    shown = [[*row[:6], sorted(row[6]), row[7], row[-1]] for row in checkpoints]
    return sorted(shown), sorted(row[:4] for row in sessions)


def _clients_wait(cluster: Cluster) -> str:
    for driver in cluster.clients.drivers:
        client = driver.client
        if not client.over and not client.attached:
            return f"{client.name} is not attached"
        if client.busy:
            return f"{client.name} waits for the answers to {list(client.pending)}"
        if not driver.settled:
            return f"{client.name} waits to lead, or leads"
    return ""


def _replicas_differ(cluster: Cluster, nodes: list[Node], creation_id: int) -> str:
    if creation_id in nodes[0].context.stops.closed:
        return ""  # It stopped nodes, and waits for an operator.
    entry = nodes[0].directory.checkpoints[creation_id]
    name = f"{entry.name.decode()} ({creation_id:x})"
    if entry.last_in_sync:
        return f"{name} waits for its last in-sync replicas on {entry.last_in_sync}"
    attributes = entry.attributes
    if entry.active is None and not (attributes.collocated and not attributes.sync):
        return f"{name} has no active replica"
    wanted = min(cluster.options.replicas, len(nodes))
    full = [node.context.node_id for node in nodes if node.liveness.own.full]
    without = [node_id for node_id in full if node_id not in entry.replicas]
    if not attributes.collocated and len(entry.replicas) < min(wanted, len(nodes) - len(without)):
        return f"{name} has replicas only on {list(entry.replicas)}, but needs {wanted}"
    if entry.active is None:
        return ""
    lacking = [node_id for node_id, in_sync in entry.replicas.items() if not in_sync]
    if not all(creation_id in cluster.deferred_replicas(node_id) for node_id in lacking):
        return f"{name} has replicas that are not in sync: {entry.replicas}"
    versions = []
    wanted_limits = (entry.resize_number, entry.attributes.limits, entry.attributes.limits)
    for node in nodes:
        if not entry.replicas.get(node.context.node_id):
            continue
        replica = node.replicas.get(creation_id)
        if replica is None or comparable_content(replica) is None:
            return f"{name} has no consistent replica on {node.context.node_id}"
        versions.append((version_of(replica)[1], comparable_content(replica)))
        if replica.sections.resize_state != wanted_limits:
            return (
                f"{name} is resized to {wanted_limits}, and its content has {replica.sections.resize_state}"
            )
    if any(version != versions[0] for version in versions):
        return f"{name} differs between its replicas: {[version[0] for version in versions]}"
    return ""


def violations(cluster: Cluster) -> list[str]:
    """Return the invariants that are broken over all nodes at this moment."""
    return broken_invariants(
        [(host.node, host.local_ns) for host in cluster.hosts.values() if host.node is not None]
    )
