"""Ports of loopback for daemons, such that no two processes of a machine choose the same one."""

import random
import socket
import weakref
from typing import Final

from ckptd.testing.errors import ClusterError

# Ports below Linux's ephemeral range (from 32768). While its node is down, a port in that range may be taken
# by the outgoing connection of another process, and a peer that dials it may even connect to itself.
PORT_MIN: Final = 15_000
PORT_MAX: Final = 32_000
PORT_ATTEMPTS: Final = 1_000


class HeldPort:
    """A port of 127.0.0.1, for TCP and UDP, that no other `HeldPort` gets until `close()`.

    Its `number` is odd. While it is held, an otherwise unused socket stays bound to the even port below it.
    So the kernel keeps two processes from getting the same port, even while no daemon listens on it.
    """

    def __init__(self) -> None:
        """Hold a random free port. Raises: ClusterError if none is free."""
        for _ in range(PORT_ATTEMPTS):
            guarding = random.randrange(PORT_MIN, PORT_MAX, 2)
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", guarding))
                with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                    tcp.bind(("127.0.0.1", guarding + 1))
                    udp.bind(("127.0.0.1", guarding + 1))
            except OSError:
                guard.close()
                continue
            self.number = guarding + 1
            self.close = weakref.finalize(self, guard.close)
            return
        raise ClusterError(f"no port of 127.0.0.1 between {PORT_MIN} and {PORT_MAX} is free")

    def __str__(self) -> str:
        return str(self.number)
