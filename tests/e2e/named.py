"""A cluster whose nodes know each other by name, in a mount namespace with an /etc/hosts of its own.

    unshare -m python -m tests.e2e.named late|moved

Exit code 0: the cluster serves again soon after the name is right.
"""

import subprocess
import sys
import time

from ckptd.testing import LocalCluster

IPS = {"a": "127.0.0.11", "b": "127.0.0.12", "c": "127.0.0.13"}
MOVED_IP = "127.0.0.21"
WRONG_FOR_S = 2.0


class NamedCluster(LocalCluster):
    """A cluster in which node x has the name `node-x`. `ips`: where each node listens."""

    def __init__(self) -> None:
        super().__init__(3)
        self.ips = dict(IPS)
        self._mounted = False

    def know(self, names: dict[str, str]) -> None:
        """Set what the name service answers from now on."""
        path = self.directory / "hosts"
        path.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} node-{n}\n" for n, ip in names.items()))
        if not self._mounted:
            subprocess.run(["mount", "--bind", str(path), "/etc/hosts"], check=True)
            self._mounted = True

    def command(self, node: int | str) -> list[str]:
        command, me = super().command(node), self.node_id(node)
        ports = {each: self.listens_at(each).rpartition(":")[2] for each in self.node_ids}
        peers = ",".join(f"{each}=node-{each}:{port}" for each, port in ports.items() if each != me)
        command[command.index("--peers") + 1] = peers
        command[command.index("--listen") + 1] = f"{self.ips[me]}:{ports[me]}"
        return command


def main(what: str) -> None:
    """Run one of the two scenarios."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    cluster = NamedCluster()
    cluster.know(IPS)
    with cluster:
        if what == "late":
            cluster.kill("c")
            cluster.know({"c": IPS["c"]})
            cluster.start("c")
            cluster.wait_until(
                lambda: "has no address" in dict(cluster.describe("cluster", "c").alarms).get("peers", ""),
                "c says that it finds nobody",
            )
            cluster.know(IPS)
        else:
            cluster.kill("a")
            cluster.ips["a"] = MOVED_IP
            cluster.start("a")
            time.sleep(WRONG_FOR_S)
            cluster.know({**IPS, "a": MOVED_IP})
        cluster.wait_serving(12)


if __name__ == "__main__":
    main(sys.argv[1])
