"""The ends of the nodes' logs, for a test that fails."""

from ckptd.testing import LocalCluster

LINES_OF_NODE = 4


def ends_of_logs(cluster: LocalCluster) -> str:
    """The last lines of each node that was started; "" once the cluster is closed."""
    paths = {node: cluster.log_path(node) for node in cluster.all_ids}
    lines = {
        node: path.read_text(errors="replace").splitlines() for node, path in paths.items() if path.exists()
    }
    return "\n".join(f"{node}: {line}" for node in lines for line in lines[node][-LINES_OF_NODE:])
