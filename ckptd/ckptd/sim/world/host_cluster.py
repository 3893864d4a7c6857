"""The way of an effect that leaves its host: to a link with a peer or with a client, or to the register."""

from ckptd.core.events import AskRegister
from ckptd.sim.world.client_links import ClientLinks
from ckptd.sim.world.fake_etcd import FakeEtcd
from ckptd.sim.world.peer_links import PeerLinks


class HostCluster:
    """What hosts of one world have in common. A subclass makes the parts, and has the rest of `host.Outside`:

    what the end of a process means, and what is done with a fence, a fault, and an event that was handled.
    """

    network: PeerLinks
    client_links: ClientLinks
    register: FakeEtcd

    def send_peer(self, sender: str, node_id: str, data: bytes) -> None:
        self.network.send(sender, node_id, data)

    def send_heartbeat(self, sender: str, node_id: str, data: bytes) -> None:
        self.network.send_datagram(sender, node_id, data)

    def refuse_peer(self, sender: str, node_id: str, incarnation: int) -> None:
        self.network.refuse(sender, node_id, incarnation)

    def close_peer(self, sender: str, node_id: str) -> None:
        self.network.close(sender, node_id)

    def send_client(self, link: int, data: bytes) -> None:
        self.client_links.send_to_client(link, data)

    def close_client(self, link: int) -> None:
        self.client_links.close_by_node(link)

    def take_large(self, link: int) -> None:
        self.client_links.take_large(link)

    def read(self, sender: str, link: int | str, reading: bool) -> None:
        if isinstance(link, int):
            self.client_links.read(link, reading)
        else:
            self.network.read(sender, link, reading)

    def ask_register(self, sender: str, request: AskRegister) -> None:
        self.register.ask(sender, request)
