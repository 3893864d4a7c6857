"""Which nodes did not answer a goodbye: the next connection that ends does not wait for them again.

Each blocking table and each service of `saf` has a connection of its own. A program that ends ten of them
while their node is silent waits for 1 s, not for 10 s.
"""

from typing import Final

from ckpt_client.session.address import Address
from ckpt_client.session.node_silence import DEAD_AFTER_NS

NO_WAIT_NS: Final = 5 * DEAD_AFTER_NS
"""How long we do not wait for a node that did not answer a goodbye."""

_unanswered_ns: dict[Address, int] = {}


def note_unanswered(address: Address, now_ns: int) -> None:
    """Note that the node at this address did not answer a goodbye."""
    _unanswered_ns[address] = now_ns


def is_worth_waiting(address: Address, now_ns: int) -> bool:
    """Return False if the node at this address did not answer a goodbye in the last NO_WAIT_NS."""
    return not 0 <= now_ns - _unanswered_ns.get(address, now_ns + 1) < NO_WAIT_NS
