"""A witness: it votes and holds no data; two data nodes with one go on like three."""

from tests.core.cluster import Cluster, nodes

from ckpt_protocol.codes import OK, UNAVAILABLE
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter.disk_record import ANY_EPOCH, DiskRecord
from ckptd.core.witness import Witness


def pair_with_witness() -> Cluster:
    cluster = nodes("ab", witnesses="w")
    assert [node.settings.arbiter_name for node in cluster.running()] == ["majority"] * 2
    return cluster


def test_the_other_data_node_continues_with_the_witness_when_the_coordinator_is_silent() -> None:
    cluster = pair_with_witness()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.kill("a", silent=True)
    table.write(b"k", b"w")
    assert list(cluster.node("b").view.members) == ["b"]  # type: ignore[union-attr]
    cluster.restart("a")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"w"}


def test_only_the_side_with_the_witness_continues() -> None:
    cluster = pair_with_witness()
    cluster.client("a").open().write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.cut("a", "w")
    cluster.run(3000)
    assert (cluster.serving("a"), cluster.serving("b")) == (False, True)
    cluster.heal()
    cluster.check()


def test_two_data_nodes_continue_without_their_witness_and_report_that_it_is_away() -> None:
    cluster = pair_with_witness()
    table = cluster.client("b").open()
    cluster.kill("w")
    cluster.run(2000)
    table.write(b"k", b"v")
    assert "arbiter" not in cluster.node("a").context.alarms, "two of three voters are a majority"
    cluster.kill("b", silent=True)
    cluster.run(3000)
    assert not cluster.serving("a"), "it has no majority"
    assert "1 of 3 voters" in cluster.node("a").context.alarms["arbiter"]
    cluster.restart("w")
    cluster.until(lambda: cluster.serving("a"))
    assert cluster.node("a").context.alarms == {}


def test_a_witness_is_a_member_of_no_view_and_holds_nothing() -> None:
    cluster = pair_with_witness()
    cluster.client("a").open().write(b"k", b"v")
    cluster.run(500)
    for node in cluster.running():
        assert node.view is not None and list(node.view.members) == ["a", "b"]
        assert node.view.witnesses == {"w": 1}
        assert [entry.in_sync for entry in node.directory.checkpoints.values()] == [["a", "b"]]


def test_a_cold_start_takes_a_majority_of_data_nodes_and_witnesses() -> None:
    cluster = Cluster("ab", witnesses="w")
    cluster.start("a")
    cluster.run(2000)
    assert not cluster.serving("a")
    cluster.start("w")
    cluster.until(lambda: cluster.serving("a"))


def test_a_witness_that_lost_its_state_directory_abstains_until_a_view_names_it() -> None:
    """It may have promised anything: its vote counts again when a majority without it has decided so."""
    cluster = pair_with_witness()
    cluster.kill("w")
    cluster.lose_disk("w")
    cluster.run(500)
    cluster.cut("a", "b")
    cluster.cut("a", "w")
    cluster.restart("w")
    cluster.run(3000)
    assert not cluster.serving("b"), "b and a forgetful witness are no majority"
    cluster.heal()
    cluster.settle()
    cluster.until(lambda: cluster.node("a").view.witnesses == {"w": 2})  # type: ignore[union-attr]
    cluster.kill("a", silent=True)
    cluster.until(lambda: cluster.serving("b"))


def test_a_witness_that_came_late_is_remembered_by_its_disk_once_a_view_names_it() -> None:
    """Seen with real processes: the two others had decided their views without it, it was restarted, and
    what it had never had to promise was taken for forgotten: with one of two data nodes dead nobody went on.
    """
    cluster = Cluster("ab", witnesses="w")
    cluster.start("a", "b")
    cluster.settle()
    cluster.start("w")
    cluster.until(lambda: cluster.node("a").view.witnesses == {"w": 1})  # type: ignore[union-attr]
    cluster.until(lambda: not cluster.node("a").liveness.peers["w"].amnesiac)
    cluster.kill("w")
    cluster.kill("b")
    cluster.run(3000)
    assert not cluster.serving("a")
    cluster.restart("w")
    cluster.until(lambda: cluster.serving("a"))


def test_a_data_node_that_lost_its_state_directory_does_not_vote_before_it_is_admitted() -> None:
    """Seen in a model: it promised, forgot, and promised again; two views had one epoch."""
    cluster = nodes("abc")
    cluster.client("a").open().write(b"k", b"v")
    cluster.kill("c")
    cluster.lose_disk("c")
    cluster.run(500)
    cluster.kill("b", silent=True)
    cluster.restart("c")
    cluster.run(3000)
    assert not cluster.serving("a"), "a has no majority with somebody who does not remember"
    cluster.restart("b")
    cluster.settle()
    assert not cluster.node("c").store.amnesiac
    cluster.kill("b", silent=True)
    cluster.until(lambda: cluster.serving("a"))
    assert cluster.contents("a") == {b"k": b"v"}


def test_what_a_lost_disk_knew_stays_unknown_until_a_view_is_installed() -> None:
    """A node that has voted since is no witness to what its earlier starts served (ADR 9)."""
    cluster = nodes("abc")
    cluster.kill("c")
    cluster.lose_disk("c")
    cluster.settle()
    cluster.restart("c")
    cluster.until(lambda: bool(cluster.hosts["c"].disk.record))
    assert cluster.node("c").view is None, "it was named, and has installed nothing"
    cluster.kill("c")
    cluster.restart("c")
    assert not cluster.node("c").store.amnesiac
    assert cluster.node("c").store.installed_by_earlier_incarnations == ANY_EPOCH
    cluster.settle()
    cluster.kill("c")
    cluster.restart("c")
    assert 0 < cluster.node("c").store.installed_by_earlier_incarnations < ANY_EPOCH


def ask_witness(cluster: Cluster, kind: int, *fields: object) -> tuple[int, object, int, str]:
    witness = cluster.hosts["w"].core
    assert isinstance(witness, Witness)
    client = cluster.client("a")
    client.node_id, client.link = "w", cluster.connect_client(client, "w")
    answer = client.end(client.begin(kind, 0, fields))
    return answer.code, answer.payload, answer.index, answer.text


def test_a_witness_sends_clients_away_and_describes_the_cluster() -> None:
    cluster = pair_with_witness()
    cluster.run(100)
    code, _, _, text = ask_witness(cluster, Kind.OPEN, b"x", 7, None, True)
    assert code == UNAVAILABLE and "witness" in text
    code, described, _, _ = ask_witness(cluster, Kind.DESCRIBE, "cluster")
    assert code == OK and isinstance(described, dict)
    assert described["witnesses"] == ["w"] and described["voters"] == ["a", "b", "w"]
    assert [row[0] for row in described["members"]] == ["a", "b"]
    assert ask_witness(cluster, Kind.DESCRIBE, "checkpoints")[:2] == (OK, [])


def voting_witnesses(cluster: Cluster, node_id: str) -> list[str]:
    client = cluster.client(node_id)
    answer = client.end(client.begin(Kind.DESCRIBE, 0, ["cluster"]))
    assert isinstance(answer.payload, dict)
    return list(answer.payload["voting_witnesses"])


def test_a_node_says_which_witnesses_vote() -> None:
    cluster = pair_with_witness()
    cluster.until(lambda: voting_witnesses(cluster, "a") == ["w"])
    described = ask_witness(cluster, Kind.DESCRIBE, "cluster")[1]
    assert isinstance(described, dict) and described["voting_witnesses"] == ["w"]
    cluster.kill("w")
    cluster.until(lambda: voting_witnesses(cluster, "a") == [])
    cluster.lose_disk("w")
    cluster.restart("w")
    cluster.until(lambda: voting_witnesses(cluster, "a") == ["w"])
    assert cluster.node("a").view.witnesses == {"w": 2}, "only now it votes"  # type: ignore[union-attr]


def test_a_witness_leaves_at_once() -> None:
    cluster = pair_with_witness()
    cluster.leave("w")
    assert cluster.left == ["w"]


def test_a_node_that_has_installed_a_view_and_voted_for_none_has_history_too() -> None:
    """Seed 276: it was taken for a node at its first start; with one that had lost its disk it founded epoch 1 anew."""
    cluster = nodes("abc")
    cluster.client("b").open().write(b"k", b"v")
    cluster.kill("a")
    cluster.lose_disk("a")
    cluster.run(200)
    cluster.restart("a")
    cluster.settle()
    cluster.kill("b", silent=True)
    for node_id in "ac":
        cluster.kill(node_id)
    cluster.lose_disk("c")
    cluster.run(1000)
    cluster.restart("a")
    cluster.restart("c")
    cluster.run(5000)
    assert not cluster.serving("a") and not cluster.serving("c")


def test_one_empty_disk_among_voters_that_never_saw_a_view_is_no_first_start() -> None:
    """Seed 833: b and c had founded epoch 1; b lost its disk, c was cut off, and a had only promised something."""
    cluster = Cluster("abc")
    cluster.hosts["a"].disk.record = DiskRecord((1, "b")).pack()
    cluster.start("a", "b")
    cluster.run(5000)
    assert not cluster.serving("a") and not cluster.serving("b")
    cluster.start("c")
    cluster.settle()


def test_a_cold_start_continues_when_its_first_votes_are_lost() -> None:
    """A voter that has voted for itself is not empty any more: the other one must count it all the same."""
    cluster = Cluster("abc")
    cluster.hold("a", "b")
    cluster.start("a", "b")
    cluster.run(300)
    cluster.holds.clear()
    cluster.flap("a", "b")
    cluster.settle()
