"""A bug of our own stops a node: the others leave alone what it was at, and serve everything else.

With `apply` made to raise on one value the client's repeats of one write ended two of three nodes.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.core.client import READ_WRITE, Call, Client, Opened
from tests.core.cluster import Cluster, three_nodes, two_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import LIBRARY, NOT_EXIST, OK, TRY_AGAIN
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.messages import Kind, Op
from ckptd.core.arbiter.disk_record import parse_disk_record
from ckptd.core.directory.directory import Directory, DirectoryOp
from ckptd.core.events import PeerReceived
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.core.requests.forwarding import Forwarding
from ckptd.core.requests.sessions import Sessions
from ckptd.core.stops_by_bugs import CLOSES_AFTER, STOPS_MAX, Phase, Stop, Stops, parse_faults
from ckptd.sim.mutants.planted_bugs import apply_raises_on, commit_raises_on, copying_raises_on
from ckptd.sim.world.host import PlantedBugError

POISON = b"poison"
KINDS = [SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA]


def two_tables(cluster: Cluster, flags: int = SA_CKPT_WR_ALL_REPLICAS) -> tuple[Opened, Opened, str]:
    """A client that writes (at a node that is not active), a table that nothing happens to, the active node."""
    table = cluster.client("a").open(flags=flags)
    table.write(b"k", b"before")
    active = cluster.active() or ""
    other = next(n for n in "abc" if n not in (active, "a"))
    writer = cluster.client(other).open_existing()
    bystander = cluster.client(other).open(name=b"bystander")
    bystander.write(b"k", b"v")
    return writer, bystander, active


def follow(cluster: Cluster, *tables: Opened) -> None:
    """Clients whose node is gone go to one that serves."""
    cluster.until(lambda: any(cluster.serving(node.context.node_id) for node in cluster.running()))
    alive = next(n.context.node_id for n in cluster.running() if cluster.serving(n.context.node_id))
    for table in tables:
        if table.client.node_id not in [n.context.node_id for n in cluster.running()]:
            table.client.move(alive)


@pytest.mark.parametrize("flags", KINDS)
def test_a_write_that_every_node_raises_at_stops_one_and_is_refused(flags: int) -> None:
    cluster = three_nodes()
    table, bystander, active = two_tables(cluster, flags)
    with apply_raises_on(POISON, lambda node_id, as_active: True) as bug:
        call = table.begin_write(b"k", POISON)
        cluster.until(lambda: call.answers)
        assert call.code == LIBRARY
        assert call.answers[0].text.startswith(f"this request stopped node {active}")
        cluster.run(2000)
        assert bug.stopped == [active]
        table.write(b"k", b"after")
        assert (table.read(b"k"), bystander.read(b"k")) == (b"after", b"v")
        cluster.restart(active)
        cluster.check()
        assert bug.stopped == [active]
    assert cluster.contents(active) == {b"k": b"after"}


@pytest.mark.parametrize("flags", KINDS)
def test_a_write_that_only_the_active_node_raises_at_is_refused_by_the_next(flags: int) -> None:
    cluster = three_nodes()
    table, bystander, active = two_tables(cluster, flags)
    with apply_raises_on(POISON, lambda node_id, as_active: node_id == active) as bug:
        assert table.try_write(b"k", POISON).code == LIBRARY
        bystander.write(b"k", b"w")
        assert table.read(b"k") == b"before"
        cluster.restart(active)
        cluster.check()
        assert bug.stopped == [active]


@pytest.mark.parametrize("flags", KINDS)
def test_a_backup_that_raises_at_an_update_is_brought_up_by_content(flags: int) -> None:
    """The log would bring it the same update again, and stop it again."""
    cluster = three_nodes()
    table, bystander, active = two_tables(cluster, flags)
    backup = next(n for n in "abc" if n not in (active, table.client.node_id))
    with apply_raises_on(POISON, lambda node_id, as_active: node_id == backup) as bug:
        assert table.try_write(b"k", POISON).code == OK
        cluster.until(lambda: bug.stopped)
        bystander.write(b"k", b"w")
        cluster.run(2000)
        cluster.restart(backup)
        cluster.check()
        assert bug.stopped == [backup]
    assert cluster.contents(backup) == {b"k": POISON}
    assert cluster.in_sync(active) == ["a", "b", "c"]


def test_backups_that_both_raise_stop_once_and_the_update_is_kept() -> None:
    cluster = three_nodes()
    table, bystander, _ = two_tables(cluster)
    with apply_raises_on(POISON, lambda node_id, as_active: not as_active) as bug:
        call = table.begin_write(b"k", POISON)
        cluster.until(lambda: len(bug.stopped) == 2)
        cluster.run(50)
        for node_id in bug.stopped[:]:
            cluster.restart(node_id)
        follow(cluster, table, bystander)
        cluster.until(lambda: call.answers)
        assert call.code == OK
        cluster.check()
        assert len(bug.stopped) == 2
        assert bystander.read(b"k") == b"v"
    assert {cluster.contents(n)[b"k"] for n in "abc"} == {POISON}


def test_a_node_whose_last_words_did_not_arrive_sends_them_after_its_restart() -> None:
    cluster = three_nodes()
    table, bystander, _ = two_tables(cluster)
    cluster.speechless = True
    with apply_raises_on(POISON, lambda node_id, as_active: as_active) as bug:
        call = table.begin_write(b"k", POISON)
        cluster.until(lambda: len(bug.stopped) == 2)  # The next one tried it, since it was not told.
        cluster.run(50)
        cluster.speechless = False
        for node_id in bug.stopped[:]:
            cluster.restart(node_id)
        follow(cluster, table, bystander)
        cluster.run(3000)
        assert len(bug.stopped) == 2
        # Two nodes stopped at this checkpoint: it is not served, and says so; all else is.
        assert bystander.read(b"k") == b"v"
        assert not call.answers or call.code in (LIBRARY, TRY_AGAIN)


def test_an_update_that_no_active_replica_can_finish_closes_its_checkpoint_and_no_other() -> None:
    """It may have been acknowledged, so that nobody may drop it; and whoever finishes it stops."""
    cluster = three_nodes()
    table, bystander, _ = two_tables(cluster)
    with commit_raises_on(POISON, lambda node_id, as_active: True) as bug:
        call = table.begin_write(b"k", POISON)
        cluster.until(lambda: len(bug.stopped) == CLOSES_AFTER)
        cluster.run(50)
        for node_id in bug.stopped[:]:
            cluster.restart(node_id)
        follow(cluster, table, bystander)
        cluster.run(5000)
        assert len(bug.stopped) == CLOSES_AFTER
        assert bystander.read(b"k") == b"v"
        bystander.write(b"k", b"w")
        asked = table.begin_read(b"k")
        cluster.until(lambda: asked.answers)
        assert asked.code == TRY_AGAIN
        assert "is not served: a request to it stopped node" in asked.answers[0].text
        survivor = next(n for n in "abc" if n not in bug.stopped)
        assert "closed" in cluster.node(survivor).context.alarms
        assert "'x'" in cluster.node(survivor).context.alarms["closed"]
        rows = cluster.client(survivor).call(Kind.DESCRIBE, 0, ["checkpoints"]).payload
        assert {row[0]: bool(row[8]) for row in rows} == {b"x": True, b"bystander": False}
        assert any(POISON in content for _, content in cluster.quarantined)
        assert any(
            POISON in section.content for _, section in cluster.replica(survivor).sections.items_sorted()
        )
    # The operator, with a version that has no such bug, has it tried again: nothing was lost.
    assert cluster.operate(survivor, "retry", "x").code == OK
    cluster.until(lambda: cluster.active() is not None)
    assert table.read(b"k") == POISON
    call.answers.clear()  # (TRY_AGAIN, of the copy that met the closed checkpoint.)
    table.client.send(call)
    cluster.until(lambda: call.answers)
    assert call.code == OK
    cluster.check()
    assert "closed" not in cluster.node(survivor).context.alarms


def test_a_closed_checkpoint_can_be_unlinked_and_created_again() -> None:
    cluster = three_nodes()
    table, bystander, _ = two_tables(cluster)
    with commit_raises_on(POISON, lambda node_id, as_active: True) as bug:
        table.begin_write(b"k", POISON)
        cluster.until(lambda: len(bug.stopped) == CLOSES_AFTER)
        cluster.run(50)
        for node_id in bug.stopped[:]:
            cluster.restart(node_id)
        follow(cluster, table, bystander)
        cluster.run(3000)
        assert bystander.client.unlink().code == OK
        again = bystander.client.open()
        again.write(b"k", b"fresh")
        assert again.read(b"k") == b"fresh"
        assert len(bug.stopped) == CLOSES_AFTER
        table.client.call(Kind.DETACH)
        cluster.run(15_000)
    assert all(not node.context.stops.by_creation for node in cluster.running())
    cluster.check()


def test_a_replica_that_stops_its_node_is_not_made_there_again() -> None:
    cluster = three_nodes()
    table, _, active = two_tables(cluster)
    away = next(n for n in "abc" if n not in (active, table.client.node_id))

    def at(node_id: str, as_active: bool) -> bool:
        return node_id == away

    with apply_raises_on(POISON, at) as applying, copying_raises_on(POISON, at) as copying:
        table.write(b"k", POISON)
        cluster.until(lambda: applying.stopped)
        for _ in range(2):
            cluster.run(2000)
            cluster.restart(away)
        cluster.run(5000)
        assert (applying.stopped, copying.stopped) == ([away], [away])
        assert cluster.serving(away)
        assert cluster.in_sync(active, b"bystander") == ["a", "b", "c"]
        assert away not in cluster.in_sync(active)
        assert "replicas_degraded" in cluster.node(active).context.alarms
        assert table.read(b"k") == POISON


@pytest.mark.parametrize("knows_late", [False, True])
def test_a_node_that_makes_no_replica_is_not_made_active_and_the_active_one_continues(
    knows_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ActiveReplicaSet there was granted, and each update ended that node: it looked for its copy."""
    if knows_late:
        monkeypatch.setattr(Sessions, "_check_makes_replicas", lambda clients, creation_id: None)
    cluster = three_nodes()
    table = cluster.client("c").open(flags=SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED)
    for node_id in "abc":
        stop = Stop("a", 1, Phase.COPY, table.creation_id, 1, 1, 0, 0)
        cluster.node(node_id).context.stops.add([stop])
    mine = cluster.client("a").open_existing()
    placed = mine.begin(Kind.ACTIVE_SET, False)
    cluster.run(5)
    calls = [placed, mine.begin_write(b"k", b"v"), mine.begin(Kind.STATUS)]
    cluster.run(50)
    assert [call.code for call in calls] == ([None] * 3 if knows_late else [LIBRARY, NOT_EXIST, NOT_EXIST])
    assert cluster.serving("a")


def test_a_checkpoint_of_which_this_node_makes_no_replica_is_opened_elsewhere() -> None:
    """The OPEN waited for the copy, and was TRY_AGAIN for ever."""
    cluster = three_nodes()
    flags = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED
    table = cluster.client("c").open(flags=flags)
    assert table.call(Kind.ACTIVE_SET, False).code == OK
    for node_id in "abc":
        stop = Stop("a", 1, Phase.COPY, table.creation_id, 1, 1, 0, 0)
        cluster.node(node_id).context.stops.add([stop])
    refused = cluster.client("a").try_open()
    assert refused.code == LIBRARY
    assert "does not create a replica" in refused.text
    assert cluster.client("b").try_open().code == OK
    cluster.check()


def test_an_open_that_was_done_elsewhere_is_done_also_where_no_replica_is_made() -> None:
    cluster = three_nodes()
    table = cluster.client("c").open(flags=SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED)
    assert table.call(Kind.ACTIVE_SET, False).code == OK
    for node_id in "abc":
        stop = Stop("a", 1, Phase.COPY, table.creation_id, 1, 1, 0, 0)
        cluster.node(node_id).context.stops.add([stop])
    client = cluster.client("b")
    call = client.begin(Kind.OPEN, 0, [b"x", READ_WRITE, None, False])
    cluster.until(lambda: call.answers)
    call.answers.clear()  # It was lost with the link.
    client.disconnect()
    client.move("a")
    cluster.until(lambda: call.answers)
    assert call.code == OK


def test_sections_that_stop_nodes_when_they_expire_close_their_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No client asked for it, so nothing can be refused; each active replica would stop in its turn."""
    cluster = three_nodes()
    table, bystander, active = two_tables(cluster)
    stopped: list[str] = []

    def expires(one: ActiveReplica, ops: object, time_ns: int) -> None:
        stopped.append(one.context.node_id)
        raise PlantedBugError

    monkeypatch.setattr(ActiveReplica, "submit_internal", expires)
    wall_ns = cluster.now_ns + cluster.node(active).context.wall_offset_ns
    table.update([Op.CREATE, b"soon", wall_ns + 500_000_000, b"v"])
    cluster.until(lambda: len(stopped) == CLOSES_AFTER)
    cluster.run(50)
    for node_id in stopped[:]:
        cluster.restart(node_id)
    follow(cluster, table, bystander)
    cluster.run(5000)
    assert len(stopped) == CLOSES_AFTER
    assert bystander.read(b"k") == b"v"


@pytest.fixture
def directory_raises(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every node raises when it applies the unlinking of `poison`."""
    raised: list[object] = []
    apply = Directory.apply

    def applied(directory: Directory, op: list[object], seq: int, now_ns: int) -> None:
        apply(directory, op, seq, now_ns)
        if op[0] == DirectoryOp.UNLINK and op[1] == POISON:
            raised.append(seq)
            raise PlantedBugError

    monkeypatch.setattr(Directory, "apply", applied)
    yield raised


def test_a_directory_request_that_stops_the_coordinator_is_dropped_and_refused(
    directory_raises: list[object],
) -> None:
    """Every member holds it, and each coordinator finished first what the last one had staged."""
    cluster = three_nodes()
    table, bystander, _ = two_tables(cluster)
    other = cluster.client("b").open(name=POISON)
    call = other.client.begin(Kind.UNLINK, 0, [POISON])
    cluster.until(lambda: call.answers)
    assert call.code == LIBRARY
    cluster.run(2000)
    assert len(directory_raises) == 1
    follow(cluster, table, bystander, other)
    other.write(b"k", b"v")
    assert (other.read(b"k"), bystander.read(b"k")) == (b"v", b"v")
    cluster.restart("a")
    cluster.check()


def test_members_that_raise_at_an_operation_that_was_answered_come_back_with_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = three_nodes()
    table, bystander, _ = two_tables(cluster)
    other = cluster.client("a").open(name=POISON)
    apply, stopped = Directory.apply, []

    def applied(directory: Directory, op: list[object], seq: int, now_ns: int) -> None:
        apply(directory, op, seq, now_ns)
        if op[0] == DirectoryOp.UNLINK and op[1] == POISON and directory is not cluster.node("a").directory:
            stopped.append(seq)
            raise PlantedBugError

    monkeypatch.setattr(Directory, "apply", applied)
    assert other.client.unlink(POISON).code == OK
    cluster.until(lambda: len(stopped) == 2)
    cluster.run(50)
    cluster.restart("b")
    cluster.restart("c")
    follow(cluster, table, bystander)
    cluster.check()
    assert len(stopped) == 2
    assert all(node.directory.find(POISON) is None for node in cluster.running())


def raises_once_told(patched: pytest.MonkeyPatch, owner: type, name: str) -> list[str]:
    """Every node raises when it comes to this method, after it did its work; who did."""
    raised: list[str] = []
    original = getattr(owner, name)

    def method(one: Any, *arguments: Any, **named: Any) -> Any:
        original(one, *arguments, **named)
        raised.append(one.context.node_id)
        raise PlantedBugError

    patched.setattr(owner, name, method)
    return raised


def test_a_synchronize_that_stops_the_active_replicas_node_is_refused_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = three_nodes()
    table, bystander, active = two_tables(cluster, SA_CKPT_WR_ACTIVE_REPLICA)
    with monkeypatch.context() as patched:
        raised = raises_once_told(patched, ActiveReplica, "synchronize")
        assert table.synchronize().code == LIBRARY
        assert raised == [active]
    bystander.write(b"k", b"w")
    cluster.restart(active)
    cluster.check()


def test_an_attach_that_stops_its_node_is_refused_at_every_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has another number at each try: the session tells."""
    cluster = three_nodes()
    table, _, _ = two_tables(cluster)
    with monkeypatch.context() as patched:
        raised: list[str] = []
        apply = Directory.apply

        def applied(directory: Directory, op: list[Any], seq: int, now_ns: int) -> None:
            apply(directory, op, seq, now_ns)
            if op[0] == DirectoryOp.ATTACH and op[1] == 7777:
                raised.append("")
                raise PlantedBugError

        patched.setattr(Directory, "apply", applied)
        client = Client(cluster, session=7777)
        client.node_id = "b"
        client.link = cluster.connect_client(client, "b")
        call = client.calls[1] = Call(1, Kind.ATTACH, 7777, pack_body([True]))
        client.send(call, 1)
        cluster.until(lambda: raised)
        follow(cluster, table)
        again = Client(cluster, session=7777)
        assert again.attach("c").code == LIBRARY
        assert len(raised) == 1
    cluster.restart("a")
    cluster.check()


def test_an_answer_that_stops_the_clients_node_is_not_passed_back_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = three_nodes()
    table, bystander, _ = two_tables(cluster)
    with monkeypatch.context() as patched:
        raised: list[object] = []
        original = Forwarding.on_forward_answer

        def on_forward_answer(forwarding: Forwarding, frame: Frame) -> None:
            request = forwarding.waiting.forwarded.get((frame.c, frame.a))
            original(forwarding, frame)
            if request is not None and POISON in request.body:
                raised.append(forwarding.context.node_id)
                raise PlantedBugError

        patched.setattr(Forwarding, "on_forward_answer", on_forward_answer)
        first = table.client.node_id
        call = table.begin_write(b"k", POISON)
        cluster.until(lambda: raised)
        cluster.run(2000)
        active = cluster.active() or ""
        second = next(n for n in "abc" if n not in (first, active))
        table.client.move(second)
        bystander.client.move(second)
        cluster.until(lambda: call.answers)
        assert call.code == LIBRARY
        assert raised == [first]
    assert table.read(b"k") == POISON  # As the text says, it may have been done.
    cluster.restart(first)
    cluster.check()


def test_of_a_pair_the_other_node_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = two_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"before")
    active = cluster.active() or ""
    other = "ab".replace(active, "")
    table = cluster.client(other).open_existing()
    with apply_raises_on(POISON, lambda node_id, as_active: True) as bug:
        assert table.try_write(b"k", POISON).code == LIBRARY
        assert bug.stopped == [active]
        table.write(b"k", b"after")
        cluster.restart(active)
        cluster.check()


def test_what_is_known_ends_with_the_session_and_the_checkpoint() -> None:
    cluster = three_nodes()
    table, _, active = two_tables(cluster)
    with apply_raises_on(POISON, lambda node_id, as_active: True):
        assert table.try_write(b"k", POISON).code == LIBRARY
    cluster.restart(active)
    cluster.settle()
    assert all(len(node.context.stops.known) == 1 for node in cluster.running())
    table.client.unlink()
    for client in {table.client.session: table.client}.values():
        client.call(Kind.DETACH)
    cluster.run(20_000)
    assert all(not node.context.stops.known for node in cluster.running())
    assert all(not node.store.record.stops for node in cluster.running())


def test_a_record_from_before_there_were_stops_is_read() -> None:
    packed = pack_body([[3, "a"], [2, "b"], None, 4])
    assert parse_disk_record(packed).stops == ()
    record = parse_disk_record(packed)
    record.stops = (stop(1), stop(2, Phase.STAGE, "b"))
    assert parse_disk_record(record.pack()) == record


def stop(number: int, phase: int = Phase.ORDER, node_id: str = "a", creation_id: int = 5) -> Stop:
    return Stop(node_id, 1, phase, creation_id, 1, number, 7, number)


def test_the_oldest_stop_goes_first() -> None:
    stops = Stops()
    stops.add(stop(number) for number in range(1, STOPS_MAX + 2))
    assert len(stops.known) == STOPS_MAX
    assert (7, 1) not in stops.requests
    assert (7, STOPS_MAX + 1) in stops.requests


def test_stops_of_one_start_count_once_for_closing() -> None:
    stops = Stops()
    stops.add([stop(1), stop(2)])
    assert not stops.closed
    stops.add([stop(3, Phase.STAGE, "b"), stop(3, Phase.COPY, "c")])
    assert not stops.closed
    stops.add([stop(4, Phase.LEAD, "b")])
    assert list(stops.closed) == [5]


@pytest.mark.parametrize(
    "body",
    [
        [1, 2],
        [[[1]], []],
        [[["a", 1, 1, 1, 1, 1, 1]], []],
        [[["a", 1, 1, 1, 1, 1, 1, -1]], []],
        [[["a", 1, 1, 1, 1, 1, 1, 0.5]], []],
        [[], ["x"]],
        [[["a"] * 8] * (STOPS_MAX + 1), []],
    ],
    ids=repr,
)
def test_stops_of_another_shape_are_garbage(body: object) -> None:
    with pytest.raises(FrameError):
        parse_faults(Frame(Kind.FAULTS, 0, 1, 0, pack_body(body)))


def test_a_read_under_way_is_answered_when_its_checkpoint_is_closed() -> None:
    cluster = three_nodes()
    table, _, active = two_tables(cluster, SA_CKPT_WR_ACTIVE_REPLICA)
    node_id = table.client.node_id
    cluster.hold(node_id, active)
    call = table.begin_read(b"k")
    cluster.run(5)
    stops = Stops()
    stops.add(stop(number, Phase.LEAD, node, table.creation_id) for number, node in enumerate("xy", 1))
    frame = FrameDecoder().feed(stops.frame(1))[0]
    cluster.deliver(node_id, PeerReceived(active, [frame]))
    cluster.until(lambda: call.answers)
    assert call.code == TRY_AGAIN
    assert "is not served: a request to it stopped node x and y" in call.answers[0].text


def test_a_closed_weak_checkpoint_goes_without_ordering_what_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To give the role up it put its batch in order first: what had stopped two nodes then stopped a third."""
    cluster = three_nodes(weak_batch_ns=10**12)
    table, bystander, active = two_tables(cluster, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
    table.write(b"k", POISON)
    assert cluster.replica(active).active.batch  # type: ignore[union-attr]
    stops = Stops()
    stops.add(stop(number, Phase.LEAD, node, table.creation_id) for number, node in enumerate("xy", 1))
    frame = FrameDecoder().feed(stops.frame(1))[0]
    cluster.deliver(active, PeerReceived(table.client.node_id, [frame]))
    flush = ActiveReplica.flush_batch

    def flush_batch(one: ActiveReplica) -> None:
        assert one.replica.creation_id != table.creation_id
        flush(one)

    monkeypatch.setattr(ActiveReplica, "flush_batch", flush_batch)
    assert bystander.client.unlink().code == OK
    for client in [link.client for link in cluster.client_links.links.values()]:
        if isinstance(client, Client) and client.link and client is not bystander.client:
            client.disconnect(process_dead=True)
    cluster.run(3000)
    assert all(table.creation_id not in node.replicas for node in cluster.running())
    assert len(cluster.running()) == 3
    assert bystander.read(b"k") == b"v"
