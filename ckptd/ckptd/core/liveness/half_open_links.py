"""Links that only one end believes in."""

from ckptd.core.context import NEVER_NS, Context
from ckptd.core.liveness.peer import Peer


def is_half_open(context: Context, peer: Peer) -> bool:
    """Return True if only this end believes in the link to a peer: it is to be closed and made again.

    After a cut one end may have given the connection up while the other, which has nothing to send,
    never learns of it: each then waited for the other to connect. A peer that has not met our current
    incarnation has no link to it either.
    """
    me, us = context.node_id, context.incarnation
    reports_no_link = peer.knows_us != us or (peer.its_heard.get(me) == us and not peer.left)
    if not peer.connected or not reports_no_link or peer.its_links.get(me) == us:
        peer.disconnected_since_ns = NEVER_NS
    elif peer.disconnected_since_ns == NEVER_NS:
        peer.disconnected_since_ns = context.now_ns
    elif context.now_ns - peer.disconnected_since_ns >= context.settings.grace_ns:
        peer.disconnected_since_ns = NEVER_NS
        return True
    return False
