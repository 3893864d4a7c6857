"""Which start of a node counts, and what an operator is told of what keeps a node out."""

from typing import Any

import pytest
from tests.core.client import Client
from tests.core.cluster import Cluster, three_nodes, two_nodes

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind
from ckptd.core.events import ClosePeer, HeartbeatReceived, Outranked, PeerReceived, PeerTrouble
from ckptd.core.liveness.incarnations import TROUBLE_NS, UNCONFIGURED_MAX
from ckptd.core.settings import MILLISECOND_NS

OTHER = "node 'b' is expected at host-b:7301, but another incarnation of node 'b' answers there"


def described(cluster: Cluster, node_id: str) -> Any:
    """What a node answers to `ckptctl status`."""
    return Client(cluster, session=1000 + next(cluster.session_ids)).describe(node_id)


def alarms(cluster: Cluster, node_id: str) -> dict[str, str]:
    return cluster.node(node_id).context.alarms


def forge(cluster: Cluster, node_id: str, of: str, incarnation: int) -> None:
    """A heartbeat of a stranger that calls itself `of`."""
    body = pack_body([of, incarnation, 2**23, 2**23, 0, [], [], 0, "ckptd", [], []])
    cluster.deliver(node_id, HeartbeatReceived(Frame(Kind.HEARTBEAT, 2**63, 0, 0, body)))


@pytest.mark.parametrize("incarnation", [0, 2, 2**62, 2**63 - 1])
def test_forged_heartbeats_change_nothing(incarnation: int) -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    epoch = cluster.node("a").context.epoch
    for _ in range(50):
        for node_id in "ac":
            forge(cluster, node_id, "b", incarnation)
        cluster.run(50)
    table.write(b"k", b"v")
    assert cluster.node("a").context.epoch == epoch
    assert cluster.asked_back.count(("a", "b")) == 3, "once a second"
    cluster.kill("b")
    cluster.restart("b")
    cluster.check()


def lose_disk_and_clock(cluster: Cluster, node_id: str) -> None:
    """A node whose clock stood far ahead starts again with the right time and an empty state directory."""
    cluster.kill(node_id)
    cluster.hosts[node_id].saved_incarnation += 1000
    cluster.restart(node_id)
    cluster.check()
    cluster.kill(node_id)
    cluster.lose_disk(node_id)
    cluster.hosts[node_id].saved_incarnation -= 900


def test_a_start_below_one_that_is_known_begins_again_above_it() -> None:
    """Its clock was ahead once, and its state directory is lost: it was out for good."""
    cluster = three_nodes()
    lose_disk_and_clock(cluster, "b")
    known = cluster.node("a").liveness.peers["b"].incarnation
    cluster.restart("b")
    cluster.check()
    assert cluster.node("b").context.incarnation > known
    assert any("this node starts again" in line for line in cluster.lines)


def test_a_start_that_only_a_view_on_disk_names_is_known_too() -> None:
    """Nobody has met it since they started; the view of its time is waited for, or its death proved."""
    cluster = three_nodes()
    lose_disk_and_clock(cluster, "b")
    last = cluster.node("a").reconfiguration.decided
    assert last is not None
    cluster.kill("a")
    cluster.kill("c")
    for node_id in "abc":
        cluster.restart(node_id)
    cluster.check()
    assert cluster.node("b").context.incarnation > last.members["b"].incarnation


def test_a_node_that_serves_does_not_begin_again() -> None:
    cluster = three_nodes()
    incarnation = cluster.node("b").context.incarnation
    cluster.deliver("b", Outranked("c", 2**40))
    cluster.run(50)
    assert cluster.node("b").context.incarnation == incarnation
    assert cluster.serving("b")


def test_a_lower_start_that_the_newest_view_names_is_taken_as_it_is() -> None:
    """Who was away learns of the view, and does not make a member that serves begin again."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    peer = cluster.node("c").liveness.peers["b"]
    cluster.node("c").liveness.deaths.on_new_incarnation(
        peer, peer.incarnation + 500
    )  # (Another daemon was at b's address.)
    incarnation = cluster.node("b").context.incarnation
    cluster.run(30)
    cluster.flap("b", "c")
    table.write(b"k", b"v")
    cluster.check()
    assert cluster.node("b").context.incarnation == incarnation


def test_what_is_here_alone_goes_to_quarantine_before_a_node_begins_again() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.cut("b", "ac")
    cluster.run(2000)
    cluster.deliver("b", Outranked("c", 2**40))
    assert [node_id for node_id, _ in cluster.quarantined] == ["b"]
    cluster.run(1)
    assert cluster.node("b").context.incarnation > 2**40


def test_a_superseded_node_says_so_with_the_remedy_until_it_is_so_no_more() -> None:
    cluster = three_nodes()
    cluster.cut("b", "ac")
    cluster.run(1000)
    cluster.deliver("b", PeerTrouble("c", codes.EXIST, OTHER))
    cluster.run(50)
    status = described(cluster, "b")
    assert "alarm superseded of node b" in status["waiting_for"]
    alarm = dict(status["alarms"])["superseded"]
    assert alarm.startswith(
        f"other nodes accept another daemon as node 'b' (c: {OTHER}). Stop that daemon, or"
    )
    cluster.run(TROUBLE_NS / MILLISECOND_NS + 50)
    assert "superseded" not in dict(described(cluster, "b")["alarms"])
    cluster.deliver("b", PeerTrouble("c", codes.EXIST, OTHER))
    cluster.run(30)
    assert "superseded" in alarms(cluster, "b")
    cluster.heal()
    cluster.settle()
    cluster.run(30)
    assert "superseded" not in alarms(cluster, "b")


def test_the_superseded_half_of_a_pair_does_not_continue_alone() -> None:
    """To b another daemon is the coordinator by now: what this one acknowledged alone nobody would keep."""
    cluster = two_nodes()
    assert cluster.node("a").view is not None
    epoch = cluster.node("a").context.epoch
    cluster.cut("a", "b")
    for _ in range(30):
        cluster.deliver("a", PeerTrouble("b", codes.EXIST, "another incarnation of node 'a' answers there"))
        cluster.run(100)
    assert not cluster.serving("a")
    assert cluster.node("a").context.epoch == epoch
    cluster.run(TROUBLE_NS / MILLISECOND_NS + 2000)
    assert cluster.serving("a"), "the other one is gone: it goes on as ever"


def test_what_keeps_peers_apart_is_an_alarm_for_as_long_as_it_is_reported() -> None:
    cluster = three_nodes()
    cluster.cut("b", "c")
    cluster.run(30)
    cluster.deliver("b", PeerTrouble("c", codes.TRY_AGAIN, "node-c has no address: no such name"))
    cluster.run(30)
    assert alarms(cluster, "b")["peers"] == "node c: node-c has no address: no such name"
    cluster.run(TROUBLE_NS / MILLISECOND_NS + 50)
    assert "peers" not in alarms(cluster, "b")


def test_a_node_that_all_others_refuse_waits_for_a_link_and_says_why() -> None:
    """It "waits for 3 of 4 nodes" said nothing: the others did not know it."""
    cluster = Cluster("abcd")
    cluster.start("d")
    for peer in "abc":
        text = f"node 'd' is not among the peers of node '{peer}'"
        cluster.deliver("d", PeerTrouble(peer, codes.ACCESS, text))
    cluster.run(50)
    waiting_for = described(cluster, "d")["waiting_for"]
    assert waiting_for == "a connection to another node (see alarm peers of node d)"
    assert "node a: node 'd' is not among the peers" in alarms(cluster, "d")["peers"]


def test_unknown_nodes_are_remembered_up_to_a_limit() -> None:
    cluster = three_nodes()
    for number in range(100):
        cluster.deliver("b", PeerTrouble(f"stranger-{number}", codes.ACCESS, "it connects"))
    cluster.run(30)
    assert alarms(cluster, "b")["peers"].count("stranger-") == UNCONFIGURED_MAX


def nodes_of(cluster: Cluster, sender: str, receiver: str, *lists: Any) -> list[Any]:
    frame = Frame(Kind.NODES, 0, 0, 0, pack_body(list(lists)))
    return cluster.node(receiver).handle(PeerReceived(sender, [frame]), cluster.now_ns)


def test_hosts_with_other_peers_are_informed() -> None:
    cluster = three_nodes()
    assert "peers_differ" not in alarms(cluster, "b")
    nodes_of(cluster, "c", "b", ["a", "b", "c", "d"], [])
    cluster.run(30)
    text = alarms(cluster, "b")["peers_differ"]
    assert text.startswith("this node has nodes a, b, c; node c has nodes a, b, c, d.")
    nodes_of(cluster, "c", "b", ["c", "b", "a"], [])
    cluster.run(30)
    assert "peers_differ" not in alarms(cluster, "b")
    nodes_of(cluster, "c", "b", ["a", "b"], ["c"])
    cluster.run(30)
    assert "node c has nodes a, b and witnesses c" in alarms(cluster, "b")["peers_differ"]
    cluster.kill("c")
    cluster.run(1000)
    assert "peers_differ" not in alarms(cluster, "b"), "it is not there any more"


def test_what_a_node_reported_before_its_first_heartbeat_is_passed_on_when_that_arrives() -> None:
    """It is said once on a link: what was forgotten at the next look was never told."""
    cluster = three_nodes()
    cluster.pause("c")
    cluster.run(1000)
    nodes_of(cluster, "c", "b", ["a", "b", "c", "d"], [])
    cluster.run(30)
    assert "peers_differ" not in alarms(cluster, "b"), "it is not there yet"
    cluster.resume("c")
    cluster.until(lambda: "node c has nodes a, b, c, d" in alarms(cluster, "b").get("peers_differ", ""))


@pytest.mark.parametrize("lists", [[7, []], [["a"], [7]], [["a"]], ["ab", []]], ids=repr)
def test_nodes_that_are_no_list_of_names_are_garbage(lists: Any) -> None:
    cluster = three_nodes()
    effects = nodes_of(cluster, "c", "b", *lists)
    assert [type(effect) for effect in effects] == [ClosePeer]


def test_a_witness_sends_and_receives_node_reports_too() -> None:
    cluster = Cluster("ab", witnesses="w")
    cluster.start(*cluster.hosts)
    cluster.settle()
    cluster.run(100)
    assert all("peers_differ" not in alarms(cluster, node_id) for node_id in "ab")
    witness = cluster.hosts["w"].core
    assert witness is not None
    cluster.cut("ab", "w")
    cluster.run(1000)
    cluster.deliver("w", PeerTrouble("a", codes.EXIST, "another incarnation of node 'w' answers there"))
    cluster.run(30)
    assert "superseded" in witness.context.alarms


def test_a_lower_incarnation_that_was_bootstrapped_alone_is_accepted_with_its_view() -> None:
    """Seed 7302990: the others knew a later one, and refused every link. b served, and did not start again."""
    cluster = three_nodes()
    lose_disk_and_clock(cluster, "b")
    cluster.kill("a")
    cluster.kill("c")
    cluster.start("a", "c")  # They are not in a view again: b was a member of the last one.
    cluster.cut("b", "ac")
    cluster.restart("b")
    cluster.run(100)
    assert cluster.operate("b", "bootstrap").code == codes.OK
    cluster.until(lambda: cluster.serving("b"))
    incarnation = cluster.node("b").context.incarnation
    known = cluster.node("a").store.record.view
    assert known is not None and incarnation < known.members["b"].incarnation
    cluster.heal()
    cluster.check()
    assert cluster.node("b").context.incarnation == incarnation


def test_a_node_below_an_incarnation_that_a_view_names_starts_again_also_if_no_node_met_that_one() -> None:
    """Seed 7303071: b had lost its disk, and the register has a view that names a later b.

    a's disk has a view without b. Both waited for proof that the later b was dead.
    """
    cluster = Cluster("ab", arbiter="etcd")
    cluster.start("a", "b")
    cluster.check()
    lose_disk_and_clock(cluster, "b")
    last = cluster.node("a").reconfiguration.decided
    assert last is not None
    cluster.kill("a")
    cluster.lose_disk("a")  # (Then it has no view at all.)
    cluster.start("a", "b")
    cluster.check()
    assert cluster.node("b").context.incarnation > last.members["b"].incarnation
