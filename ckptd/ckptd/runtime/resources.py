"""What one daemon opens on its host: state directory, sockets, file descriptors, etcd, fence hook."""

import contextlib
import socket
from dataclasses import dataclass

from ckptd.runtime.config.model import Config
from ckptd.runtime.counters import Counters
from ckptd.runtime.errors import StartError
from ckptd.runtime.etcd.make_register import Register, make_register
from ckptd.runtime.host.descriptors import ConnectionCapacity, divide_descriptors
from ckptd.runtime.host.fence_hook import FenceHook
from ckptd.runtime.host.state_directory import StateDirectory
from ckptd.runtime.logs import logger
from ckptd.runtime.net.datagram_sender import DatagramSender
from ckptd.runtime.net.listening import UnixSocket, bind_port


@dataclass(slots=True, frozen=True)
class Resources:
    """The resources of one daemon, open."""

    capacity: ConnectionCapacity
    state: StateDirectory
    register: Register | None
    """The external register; None if the arbiter needs none."""

    fence_hook: FenceHook | None
    """None if none is configured."""

    closed_after_sockets: contextlib.AsyncExitStack
    """For what may take long to close: by then, peers and clients find that nothing listens here any more."""

    stream: socket.socket
    """The listening TCP socket."""

    datagrams: socket.socket
    """The UDP socket, on the same port."""

    sender: DatagramSender
    """Sends on `datagrams`."""

    unix: UnixSocket | None
    """None if this node has no unix socket."""

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self.stream.getsockname()[1])


async def open_resources(
    config: Config, later_than: int, counters: Counters, closing: contextlib.AsyncExitStack
) -> Resources:
    """Open everything, and have `closing` close it. The incarnation will be above `later_than`.

    Raises: StartupError.
    """
    capacity = divide_descriptors(config.clients_max, len(config.other_nodes))
    state = StateDirectory(
        config.state_path, config.cluster, config.node_id, config.quarantine_bytes_max, later_than
    )
    closing.callback(state.close)
    register = make_register(config)
    if register is not None:
        closing.push_async_callback(register.close)
    fence_hook = None
    if config.fence_hook:
        fence_hook = FenceHook(config.fence_hook, config.node_id, config.fence_timeout_ms / 1000)
    closed_after_sockets = await closing.enter_async_context(contextlib.AsyncExitStack())
    stream, datagrams = bind_port(config.listen)
    sender = DatagramSender(datagrams, counters)
    closing.callback(sender.close)
    closing.callback(stream.close)
    unix = _bind_unix_socket(config)
    if unix is not None:
        closing.callback(unix.close)
        closing.callback(unix.socket.close)
    return Resources(
        capacity, state, register, fence_hook, closed_after_sockets, stream, datagrams, sender, unix
    )


def _bind_unix_socket(config: Config) -> UnixSocket | None:
    path = config.socket_path
    if path is None:
        return None
    try:
        return UnixSocket(path, config.socket_mode)
    except StartError as error:
        if config.socket:
            raise
        # Of several daemons on one host, the first has the default path; the others do without a socket.
        logger.info("not listening on a unix socket: %s", error)
        return None
