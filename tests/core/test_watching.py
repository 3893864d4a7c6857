"""Changes with values and of some sections only, pages that say which state they show, and times that are left.

They are what a client makes a snapshot of a whole checkpoint from, while others write.
"""

from typing import Any

import pytest
from tests.core.client import Answer, Opened
from tests.core.cluster import Cluster, nodes, three_nodes
from tests.core.test_feature_level import mixed

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.limits import TRACK_PREFIX_BYTES_MAX
from ckpt_protocol.messages import Change, Kind, Op
from ckpt_protocol.parse_answers import Changes, Page, parse_changes, parse_element, parse_page
from ckptd.core.requests.change_feed import ROWS_MAX
from ckptd.core.settings import SECOND_NS

SYNC, ASYNC, WEAK, ASYNC_COLLOCATED = 1, 2, 4, 10
KINDS = pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])


def opened(flags: int = SYNC, at: str = "b", **how: Any) -> tuple[Cluster, Opened, Opened]:
    """A cluster, a table that is written at node a, and one at another node that looks."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags, **how)
    return cluster, table, cluster.client(at).open_existing()


def page(table: Opened, after: bytes | None = None, limit: int | None = None) -> Page:
    answer = table.call(Kind.ITERATE, 5, 0, after, True, limit, False, True)
    assert answer.code == codes.OK, answer
    return parse_page(answer.payload)


def changes(answer: Answer) -> Changes:
    assert answer.code == codes.OK, answer
    return parse_changes(answer.payload)


def begin(table: Opened) -> tuple[int, int]:
    found = changes(table.call(Kind.TRACK, None, 0))
    return found.sequence, found.lineage


def values(found: Changes) -> list[tuple[int, bytes, bytes | None]]:
    assert found.rows is not None
    return [(row.change, row.section_id, row.value) for row in found.rows]


# -- pages


@KINDS
@pytest.mark.parametrize("at", ["a", "b"])
def test_pages_say_which_state_they_show(flags: int, at: str) -> None:
    cluster, table, other = opened(flags, at)
    for key in (b"a", b"b", b"c"):
        table.write(key, b"v")
    first, second = page(other, limit=1), page(other, b"a", 1)
    assert first.position is not None
    assert first.position == second.position
    table.write(b"a", b"new")
    third = page(other, b"b")
    assert third.position is not None
    assert third.position > first.position
    assert third.position == begin(other)
    cluster.check()


def test_what_a_weak_batch_gathers_is_in_the_sequence_before_a_page_shows_it() -> None:
    """Else two pages said the same, and only the second one showed a change that was made between them."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=WEAK)
    table.write(b"a", b"1")
    table.write(b"b", b"1")
    first = page(table, limit=1)
    table.write(b"a", b"2")
    table.write(b"b", b"2")
    second = page(table, b"a")
    assert [section.value for section in second.sections] == [b"2"]
    assert first.position != second.position
    cluster.check()


# -- changes with values


@KINDS
def test_a_change_comes_with_the_value(flags: int) -> None:
    _, table, other = opened(flags)
    table.write(b"k", b"before")
    place = begin(other)
    call = other.begin(Kind.TRACK, *place, True)
    table.write(b"k", b"value")
    found = changes(other.client.end(call))
    assert values(found) == [(Change.OVERWRITTEN, b"k", b"value")]
    assert found.complete
    table.update([Op.DELETE, b"k"])
    gone = changes(other.call(Kind.TRACK, found.sequence, found.lineage, True))
    assert values(gone) == [(Change.DELETED, b"k", None)]


def test_each_section_comes_once_with_its_last_change_and_its_value_of_that_moment() -> None:
    _, table, other = opened(at="a")
    place = begin(other)
    table.write(b"a", b"1")
    table.write(b"b", b"1")
    table.update([Op.PATCH, b"a", 1, b"2", None], [Op.DELETE, b"b"])
    found = changes(other.call(Kind.TRACK, *place, True))
    assert values(found) == [(Change.OVERWRITTEN, b"a", b"12"), (Change.DELETED, b"b", None)]
    assert found.complete
    assert (found.sequence, found.lineage) == begin(other)


def test_an_answer_that_is_cut_off_is_not_complete() -> None:
    _, table, other = opened(at="a", sections_max=ROWS_MAX + 10, section_bytes_max=1024)
    place = begin(other)
    for half in range(2):
        table.update(*([Op.PUT, b"%d-%d" % (half, i), b"v", None] for i in range(ROWS_MAX // 2)))
    table.write(b"last", b"v")
    found = changes(other.call(Kind.TRACK, *place, True))
    assert len(values(found)) == ROWS_MAX
    assert not found.complete
    rest = changes(other.call(Kind.TRACK, found.sequence, found.lineage, True))
    assert values(rest) == [(Change.OVERWRITTEN, b"last", b"v")]
    assert rest.complete


def test_the_values_of_one_answer_have_about_a_page() -> None:
    _, table, other = opened(at="a", sections_max=20, section_bytes_max=400_000)
    for key in range(10):  # So the log may hold what follows.
        table.write(b"%d" % key, bytes(300_000))
    place = begin(other)
    for key in range(6):
        table.write(b"%d" % key, bytes(300_000))
    found = changes(other.call(Kind.TRACK, *place, True))
    assert len(values(found)) == 4
    assert not found.complete


@pytest.mark.parametrize("ops", [1, 100])
def test_operations_that_change_no_value_count_as_looked_at(ops: int) -> None:
    """A log full of new expiration times was gone through in one turn."""
    _, table, other = opened(at="a", section_bytes_max=1_000_000)
    table.write(b"k", bytes(1_000_000))  # So the log may hold what follows.
    place = begin(other)
    for _ in range(2 * ROWS_MAX // ops):
        table.update(*([[Op.EXPIRE_AFTER, b"k", SECOND_NS]] * ops))
    found = changes(other.call(Kind.TRACK, *place))
    assert found.rows == []
    assert found.sequence < begin(other)[0]
    call = other.begin(Kind.TRACK, *place, False, b"mine")
    table.write(b"mine", b"v")
    assert values(changes(other.client.end(call))) == [(Change.OVERWRITTEN, b"mine", None)]


def test_values_that_no_frame_carries_are_looked_for_in_pages() -> None:
    """Many small sections of one update had grown since. The client could not receive the answer."""
    cluster = nodes("a")
    table = cluster.client("a").open(section_bytes_max=1 << 20)
    other = cluster.client("a").open_existing()
    place = begin(other)
    table.update(*([Op.PUT, b"%d" % key, b"v", None] for key in range(90)))
    for key in range(90):
        table.update([Op.PATCH, b"%d" % key, (1 << 20) - 1, b"x", None])
    found = changes(other.call(Kind.TRACK, *place, True))
    assert found.rows is None
    assert (found.sequence, found.lineage) == begin(other)
    without_values = changes(other.call(Kind.TRACK, *place))
    assert without_values.rows is not None
    assert len(without_values.rows) == 90


def test_values_are_those_before_the_updates_that_are_pending() -> None:
    cluster, table, other = opened(at="a", sections_max=300)
    place = begin(other)
    table.update(*([Op.PUT, b"%d" % key, b"old", None] for key in range(200)))
    cluster.cut("a", "b")
    for key in range(0, 200, 2):
        table.begin_write(b"%d" % key, b"new")
    cluster.run(5)
    found = changes(other.call(Kind.TRACK, *place, True))
    assert values(found) == [(Change.OVERWRITTEN, b"%d" % key, b"old") for key in range(200)]
    cluster.heal()
    cluster.check()


def test_an_uncommitted_value_is_not_shown() -> None:
    cluster, table, other = opened(at="a")
    table.write(b"k", b"old")
    place = begin(other)
    call = other.begin(Kind.TRACK, *place, True)
    cluster.cut("a", "b")
    written = table.begin_write(b"k", b"new")
    cluster.run(20)
    assert not call.answers
    assert not written.answers
    cluster.heal()
    assert values(changes(other.client.end(call))) == [(Change.OVERWRITTEN, b"k", b"new")]
    cluster.check()


# -- some sections only


@KINDS
@pytest.mark.parametrize(
    ("prefix", "exact", "told"),
    [(b"job:", False, [b"job:1", b"job:10"]), (b"job:1", True, [b"job:1"]), (b"none", False, [])],
)
def test_only_the_sections_that_are_asked_for_are_reported(
    flags: int, prefix: bytes, exact: bool, told: list[bytes]
) -> None:
    cluster, table, other = opened(flags)
    call = other.begin(Kind.TRACK, *begin(other), False, prefix, exact)
    table.write(b"other", b"v")
    cluster.run(50)
    assert not call.answers
    table.update(*([Op.PUT, key, b"v", None] for key in (b"jo", b"job:1", b"job:10")))
    cluster.run(50)
    rows = changes(call.answers[0]).rows if call.answers else []
    assert [row.section_id for row in rows or ()] == told
    cluster.check()


def test_the_changes_of_other_sections_are_looked_at_once() -> None:
    """A request for one section went through all later changes of others again with each of them."""
    cluster, table, other = opened(at="a", section_bytes_max=60_000)
    call = other.begin(Kind.TRACK, *begin(other), False, b"mine", True)
    for _ in range(200):
        table.write(b"other", bytes(50_000))  # They push each other out of the log.
    assert not call.answers
    table.write(b"mine", b"v")
    found = changes(other.client.end(call))
    assert values(found) == [(Change.OVERWRITTEN, b"mine", None)]
    cluster.check()


def test_a_request_for_some_sections_that_waits_follows_its_client_and_the_role() -> None:
    cluster, table, other = opened(at="b")
    call = other.begin(Kind.TRACK, *begin(other), True, b"mine", True)
    table.write(b"other", b"v")
    cluster.kill("a")
    cluster.run(3_000)
    writer = cluster.client("c").open_existing()
    writer.write(b"other", b"w")
    writer.write(b"mine", b"v")
    assert values(changes(other.client.end(call))) == [(Change.OVERWRITTEN, b"mine", b"v")]
    cluster.check()


def test_the_answer_after_ten_seconds_passes_over_what_was_not_asked_for() -> None:
    cluster, table, other = opened()
    before = begin(other)
    call = other.begin(Kind.TRACK, *before, False, b"mine", True)
    table.write(b"other", b"v")
    cluster.run(12_000)
    found = changes(call.answers[0])
    assert found.rows == []
    assert (found.sequence, found.lineage) == begin(other) > before


@pytest.mark.parametrize(
    "fields",
    [
        (0, 0, 1),
        (0, 0, None),
        (0, 0, True, "text"),
        (0, 0, True, None),
        (0, 0, True, b"k", 1),
        (0, 0, True, bytes(TRACK_PREFIX_BYTES_MAX + 1)),
    ],
)
def test_a_wrong_field_is_refused(fields: tuple[Any, ...]) -> None:
    _, _, other = opened()
    assert other.call(Kind.TRACK, *fields).code == codes.INVALID_PARAM
    assert other.call(Kind.TRACK, None, 0, True, bytes(TRACK_PREFIX_BYTES_MAX), True).code == codes.OK


# -- sections that expire after a time


def left_ns(table: Opened, key: bytes = b"k") -> int | None:
    answer = table.call(Kind.READ, [key, 0, None, False, True])
    assert answer.code == codes.OK, answer
    return parse_element(answer.payload).left_ns


@KINDS
def test_a_section_expires_a_time_after_the_update(flags: int) -> None:
    cluster, table, other = opened(flags)
    table.update([Op.PUT, b"k", b"v", SA_TIME_END], [Op.EXPIRE_AFTER, b"k", 5 * SECOND_NS])
    left = left_ns(other)
    assert left is not None
    assert 4 * SECOND_NS < left <= 5 * SECOND_NS
    cluster.run(4_500)
    assert other.try_read(b"k").code == codes.OK
    cluster.run(1_000)
    assert other.try_read(b"k").code == codes.NOT_EXIST
    cluster.check()


@KINDS
def test_the_time_survives_the_loss_of_the_active_replica(flags: int) -> None:
    cluster, table, other = opened(flags)
    table.update([Op.PUT, b"k", b"v", None], [Op.EXPIRE_AFTER, b"k", 20 * SECOND_NS])
    cluster.run(100)
    cluster.kill("a")
    cluster.run(3_000)
    assert other.try_read(b"k").code == codes.OK
    left = left_ns(other)
    assert left is not None
    assert 16 * SECOND_NS < left < 17 * SECOND_NS
    cluster.run(18_000)
    assert other.try_read(b"k").code == codes.NOT_EXIST


def test_a_write_ends_the_time_if_it_says_so() -> None:
    _, table, _ = opened()
    table.update([Op.PUT, b"k", b"v", None], [Op.EXPIRE_AFTER, b"k", 5 * SECOND_NS])
    table.update([Op.PUT, b"k", b"w", None])
    assert left_ns(table) is not None
    table.update([Op.PUT, b"k", b"w", SA_TIME_END])
    assert left_ns(table) is None


@pytest.mark.parametrize(
    ("op", "code"),
    [
        ([Op.EXPIRE_AFTER, b"k", 0], codes.INVALID_PARAM),
        ([Op.EXPIRE_AFTER, b"k", -1], codes.INVALID_PARAM),
        ([Op.EXPIRE_AFTER, b"k", 2**63], codes.INVALID_PARAM),
        ([Op.EXPIRE_AFTER, b"k", None], codes.INVALID_PARAM),
        ([Op.EXPIRE_AFTER, b"k", 1.5], codes.INVALID_PARAM),
        ([Op.EXPIRE_AFTER, b"k"], codes.INVALID_PARAM),
        ([Op.EXPIRE_AFTER, b"missing", 5], codes.NOT_EXIST),
    ],
)
def test_a_wrong_time_is_refused_and_nothing_is_done(op: list[Any], code: int) -> None:
    cluster, table, _ = opened()
    table.write(b"k", b"v")
    assert table.try_update([Op.PUT, b"k", b"new", None], op).code == code
    assert table.read(b"k") == b"v"
    assert left_ns(table) is None
    cluster.check()


def test_a_time_without_end_is_never() -> None:
    _, table, _ = opened()
    table.update([Op.PUT, b"k", b"v", None], [Op.EXPIRE_AFTER, b"k", 2**63 - 1])
    assert left_ns(table) is None


def test_the_default_section_never_expires() -> None:
    cluster = nodes("a")
    table = cluster.client("a").open(sections_max=1)
    assert table.try_update([Op.EXPIRE_AFTER, b"", SECOND_NS]).code == codes.INVALID_PARAM
    assert left_ns(table, b"") is None


def test_no_section_expires_after_a_time_while_one_node_is_older() -> None:
    cluster = mixed()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    refused = table.try_update([Op.PUT, b"k", b"new", None], [Op.EXPIRE_AFTER, b"k", SECOND_NS])
    assert refused.code == codes.NOT_SUPPORTED
    assert "every configured node must run" in refused.text
    assert table.read(b"k") == b"v"


@KINDS
def test_remove_deletes_what_is_there(flags: int) -> None:
    cluster, table, other = opened(flags)
    table.write(b"k", b"v")
    place = begin(other)
    table.update([Op.REMOVE, b"missing"], [Op.REMOVE, b"k"], [Op.PUT, b"l", b"v", None])
    assert table.read_all() == {b"l": b"v"}
    cluster.run(50)
    found = changes(other.call(Kind.TRACK, *place))
    assert found.rows is not None
    assert (Change.DELETED, b"k") in [(row.change, row.section_id) for row in found.rows]
    cluster.check()


def test_remove_is_refused_while_one_node_is_older_and_for_the_default_section() -> None:
    table = mixed().client("a").open()
    assert table.try_update([Op.REMOVE, b"k"]).code == codes.NOT_SUPPORTED
    single = nodes("a").client("a").open(sections_max=1)
    assert single.try_update([Op.REMOVE, b""]).code == codes.INVALID_PARAM
    assert single.try_update([Op.REMOVE, b"k", True]).code == codes.INVALID_PARAM


def test_a_read_shows_the_version_and_the_time_that_is_left() -> None:
    _, table, _ = opened()
    table.update([Op.PUT, b"k", b"v", None], [Op.EXPIRE_AFTER, b"k", 5 * SECOND_NS])
    both = table.call(Kind.READ, [b"k", 0, None, True, True]).payload[0]
    value, version, left = both
    assert (value, len(version)) == (b"v", 24)
    assert 0 < left <= 5 * SECOND_NS
    assert table.call(Kind.READ, [b"k", 0, None, True, False]).payload[0] == [b"v", version]
    assert table.call(Kind.READ, [b"k", 0, None, False, False]).payload[0] == b"v"
    assert table.call(Kind.READ, [b"k", 0, None, True, 1]).code == codes.INVALID_PARAM
