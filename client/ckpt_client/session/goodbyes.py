"""Which nodes did not answer a goodbye: whoever ends next does not wait for them again.

Each blocking table and each service of `saf` has a connection of its own. A program that ends ten of them
while their node is silent waits for one second, not for ten.
"""

from typing import Final

from ckpt_client.session.address import Address
from ckpt_client.session.node_silence import SILENT_NS

NO_WAIT_NS: Final = 5 * SILENT_NS
"""For so long a node that did not answer a goodbye is told further ones without waiting."""

_unanswered_ns: dict[Address, int] = {}


def note_unanswered(address: Address, now_ns: int) -> None:
    """The node at this address did not answer a goodbye."""
    _unanswered_ns[address] = now_ns


def is_worth_waiting(address: Address, now_ns: int) -> bool:
    """Return False if the node at this address did not answer one just before."""
    return not 0 <= now_ns - _unanswered_ns.get(address, now_ns + 1) < NO_WAIT_NS
