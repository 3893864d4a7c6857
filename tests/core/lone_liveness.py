"""Nodes that only send each other heartbeats, for the tests of the liveness parts."""

import dataclasses
from typing import Any

from tests.core.lone_hub import LoneHub

from ckpt_protocol.framing import Frame, decode_datagram
from ckptd.core.context import Context
from ckptd.core.events import SendHeartbeat
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.settings import MILLISECOND_NS, Settings
from ckptd.core.view import View, bootstrap_view

START_NS = 10**12
EPOCH = 4
LEASE_NS = 600 * MILLISECOND_NS
GRACE_NS = 800 * MILLISECOND_NS
FIRST = 100
"""The incarnation of every node's first start."""


def node(node_id: str, incarnation: int = FIRST, *, now_ns: int = START_NS, **changes: Any) -> Liveness:
    """A serving member of epoch 4 among a, b and c, which has met the first start of each of the others."""
    peers = tuple(other for other in ("a", "b", "c") if other != node_id)
    settings = dataclasses.replace(
        Settings(node_id, peers=peers, lease_ns=LEASE_NS, grace_ns=GRACE_NS), **changes
    )
    context = Context(settings, incarnation, now_ns, 0)
    context.epoch, context.sealed = EPOCH, False
    liveness = Liveness(context, LoneHub())
    for peer in liveness.peers.values():
        liveness.deaths.on_new_incarnation(peer, FIRST)
    return liveness


def beat(sender: Liveness, receiver: Liveness) -> Frame:
    """The heartbeat that the sender sends to the receiver now."""
    sender.context.effects.clear()
    sender.heartbeats.send(sender.peers[receiver.context.node_id])
    (effect,) = sender.context.effects
    assert isinstance(effect, SendHeartbeat)
    assert effect.node_id == receiver.context.node_id
    return decode_datagram(effect.data)


def pass_time(passed_ns: int, *nodes: Liveness) -> None:
    for one in nodes:
        one.context.now_ns += passed_ns


def lease_until_ns(one: Liveness, view: View) -> int:
    one.lease.renew(view)
    return one.context.lease_until_ns


def pair(**changes: Any) -> tuple[Liveness, Liveness, View]:
    return node("a", **changes), node("b", **changes), bootstrap_view(EPOCH, {"a": FIRST, "b": FIRST})


def exchange(a: Liveness, b: Liveness) -> None:
    """a's stamp goes to b and comes back echoed, 1 ms each way."""
    asked = beat(a, b)
    pass_time(MILLISECOND_NS, a, b)
    assert b.heartbeats.receive(asked)
    answered = beat(b, a)
    pass_time(MILLISECOND_NS, a, b)
    assert a.heartbeats.receive(answered)


def linked_pair(**changes: Any) -> tuple[Liveness, Liveness]:
    """a hears b and had a link to it, which is gone."""
    a, b, _ = pair(**changes)
    exchange(a, b)
    return a, b
