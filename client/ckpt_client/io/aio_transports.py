"""Connect an event loop's transport to an address. A host's name is looked up in a thread of its own."""

import asyncio
import contextlib
from typing import Any

from ckpt_client.io.connecting import resolve_in_thread
from ckpt_client.session.address import Address, check_owner


class Link(asyncio.Protocol, asyncio.DatagramProtocol):
    """The base of protocols that take a stream's events, or datagrams."""


async def open_transport(
    loop: asyncio.AbstractEventLoop, address: Address, link: Link
) -> asyncio.Transport | asyncio.DatagramTransport:
    """Return a transport that is connected to an address. For udp it receives from that address only.

    Raises: OSError, ValueError for an invalid host name.
    """
    if address.scheme == "unix":
        check_owner(address)
        transport, _ = await loop.create_unix_connection(lambda: link, address.host)
        return transport
    failure: OSError = ConnectionError("the host has no address")
    for family, _, protocol, _, where in await _resolve(loop, address):
        named: dict[str, Any] = {"family": family, "proto": protocol}
        try:
            if address.datagram:
                datagrams = loop.create_datagram_endpoint(lambda: link, remote_addr=where[:2], **named)
                return (await datagrams)[0]
            return (await loop.create_connection(lambda: link, where[0], where[1], **named))[0]
        except OSError as error:
            failure = error
    raise failure


async def _resolve(loop: asyncio.AbstractEventLoop, address: Address) -> list[Any]:
    """Return the addresses of a host's name.

    The loop's own `getaddrinfo` would tie up the threads of its executor, and delay its end.
    """
    future: asyncio.Future[list[Any]] = loop.create_future()

    def settle(found: list[Any] | Exception) -> None:
        if future.done():
            return
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)

    def then(found: list[Any] | Exception) -> None:
        # The loop may have been closed in the meantime.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, found)

    resolve_in_thread(address, then)
    return await future
