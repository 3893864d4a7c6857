"""Asks the peers, before this node joins them, whether they are of the same cluster."""

import asyncio
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.framing import FrameError
from ckpt_protocol.greeting import Identity, Refused
from ckptd.runtime.addresses import HostPort
from ckptd.runtime.asking_back import ask_who
from ckptd.runtime.errors import StartRefused
from ckptd.runtime.logs import logger
from ckptd.runtime.names import look_up

ANSWER_LIMIT_S: Final = 0.3
"""A peer that does not answer in this time may be down, and we must start all the same."""


async def check_cluster(identity: Identity, peers: dict[str, HostPort], family: int) -> None:
    """Greet every peer that is up.

    Where some disagree and some do not, it is they who are wrong, and that is logged.
    Raises: StartRefused where all that answered say that we are of another cluster, hold
    another key or speak another protocol.
    """
    asked = Identity(identity.cluster, identity.key)
    answers = await asyncio.gather(*(_ask(asked, address, family) for address in peers.values()))
    refusals = [
        f"node {node_id} at {address} is not in our cluster: {answer}"
        for (node_id, address), answer in zip(peers.items(), answers, strict=True)
        if answer
    ]
    if refusals and "" not in answers:
        raise StartRefused("; ".join(refusals))
    for refusal in refusals:
        logger.warning("%s", refusal)


async def _ask(identity: Identity, address: HostPort, family: int) -> str | None:
    """ "" where the peer agrees, why where it does not, None where it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            await ask_who(identity, await look_up(address, family), family)
    except Refused as error:
        return error.text if error.code in (codes.ACCESS, codes.VERSION) else None
    except FrameError:
        return "it is no ckptd"
    except Exception as error:
        # Most are OSErrors: nobody is there. Anything else is for the peering to say, again and again.
        logger.debug("asking %s: %s", address, error)
        return None
    return ""
