"""What an update will build and hold is added up before anything is built."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.cluster import nodes, three_nodes

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.codes import NO_MEMORY, NO_RESOURCES, NO_SPACE, OK
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA_WEAK, SA_TIME_END
from ckpt_protocol.errors import RequestError
from ckpt_protocol.limits import BUILT_BYTES_MAX, OPS_PER_UPDATE_MAX
from ckpt_protocol.messages import Op
from ckptd.core.content import sections as sections_module
from ckptd.core.content.memory_growth import growth_bound, growth_of
from ckptd.core.content.sections import SECTION_OVERHEAD_BYTES, SectionTable
from ckptd.core.directory.attributes import Attributes

MIB = 1 << 20
FAR = BUILT_BYTES_MAX - 1


def table(**sections: bytes) -> SectionTable:
    made = SectionTable(Attributes(1, 0, 0, 10**6, BUILT_BYTES_MAX, 32))
    for name, value in sections.items():
        made.apply([[Op.PUT, name.encode(), value, None]], 1, 1, {})
    return made


def test_a_hundred_writes_far_after_the_end_are_refused_before_anything_is_built() -> None:
    """An UPDATE of 1.5 KB made a node allocate 6.4 GB: the limit was looked at once the sections were built."""
    cluster = nodes("a", memory_bytes_max=64 * MIB)
    opened = cluster.client("a").open(sections_max=1000, section_bytes_max=BUILT_BYTES_MAX)
    tracemalloc.start()
    try:
        answer = opened.try_update(*([Op.PATCH, b"%d" % i, FAR, b"x", None] for i in range(100)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.code, answer.index) == (NO_RESOURCES, 1)
    assert peak < MIB
    assert opened.read_all() == {}


def test_one_write_beyond_the_nodes_memory_is_refused_before_it_is_built() -> None:
    cluster = nodes("a", memory_bytes_max=32 * MIB)
    opened = cluster.client("a").open(sections_max=1000, section_bytes_max=BUILT_BYTES_MAX)
    tracemalloc.start()
    try:
        answer = opened.try_update([Op.PATCH, b"k", FAR, b"x", None])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.code == NO_MEMORY
    assert peak < MIB


def test_writes_into_one_large_section_count_it_each_time() -> None:
    """Each of them builds the section anew, also where it was made by the same update."""
    large = table(k=bytes(MIB))
    ops = [[Op.PATCH, b"k", 0, b"x", None]] * (BUILT_BYTES_MAX // MIB)
    assert growth_bound(ops, 0, large) >= BUILT_BYTES_MAX
    for body in (
        [*ops, ops[0]],
        [[Op.CREATE, b"n", SA_TIME_END, bytes(MIB)], *([[Op.WRITE, b"n", 1, b"x"]] * 65)],
    ):
        with pytest.raises(RequestError) as caught:
            growth_bound(body, 0, large)
        assert (caught.value.code, caught.value.index) == (NO_RESOURCES, len(body) - 1)


def test_an_update_of_more_operations_than_fit_a_turn_is_refused_as_a_whole() -> None:
    cluster = three_nodes()
    opened = cluster.client("a").open(sections_max=10**6)
    ops = [[Op.PUT, b"%d" % number, b"", None] for number in range(OPS_PER_UPDATE_MAX + 1)]
    assert opened.try_update(*ops).code == NO_RESOURCES
    assert opened.read_all() == {}
    assert opened.try_update(*ops[1:]).code == OK
    cluster.check()


IDS = st.sampled_from([b"", b"a", b"b", b"c"])
SIZES = st.integers(0, 12)
CONTENTS = SIZES.map(bytes)
TIMES = st.sampled_from([None, SA_TIME_END, 10_000])
OPS = st.one_of(
    st.tuples(st.just(Op.CREATE), IDS, st.just(SA_TIME_END), CONTENTS),
    st.tuples(st.just(Op.DELETE), IDS),
    st.tuples(st.just(Op.OVERWRITE), IDS, CONTENTS),
    st.tuples(st.just(Op.WRITE), IDS, SIZES, CONTENTS),
    st.tuples(st.just(Op.EXPIRATION_SET), IDS, st.just(10_000)),
    st.tuples(st.just(Op.PUT), IDS, CONTENTS, TIMES),
    st.tuples(st.just(Op.PATCH), IDS, SIZES, CONTENTS, TIMES),
)


@given(st.lists(OPS.map(list), min_size=1, max_size=6))
def test_the_growth_that_was_computed_is_the_one_that_comes(ops: list[Any]) -> None:
    sections = table(a=b"12345", b=b"")
    held_bytes = sections.resident_bytes
    grown = growth_of(ops, sections)
    bound = growth_bound(ops, len(pack_body(ops)), sections)
    try:
        sections.apply(ops, 5, 2, {})
    except RequestError:
        return
    assert sections.resident_bytes - held_bytes == grown <= bound


def test_each_section_without_an_id_counts_for_itself() -> None:
    assert growth_of([[Op.CREATE, b"", SA_TIME_END, b"1234"]] * 3, table()) == 3 * (
        SECTION_OVERHEAD_BYTES + 4
    )


# -- generated ids


def test_generated_ids_are_found_without_looking_at_all_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search began at the update's first number: 10,000 in one update were 50 million look-ups."""
    sections = table()
    looked = 0

    class Counting(dict[bytes, sections_module.Section]):
        def __contains__(self, key: object) -> bool:
            nonlocal looked
            looked += 1
            return super().__contains__(key)

    sections.sections = Counting()
    generated = sections.apply([[Op.CREATE, b"", SA_TIME_END, b""] for _ in range(500)], 5, 2, {})
    assert generated is not None and len(set(generated)) == 500
    assert looked < 5 * 500


def test_ids_that_a_client_took_in_advance_are_passed_over_once() -> None:
    sections = table()
    taken = [[Op.CREATE, number.to_bytes(8, "big"), SA_TIME_END, b""] for number in range(3, 1003)]
    sections.apply(taken, 5, 2, {})
    for seq in range(3, 6):
        made = sections.apply([[Op.CREATE, b"", SA_TIME_END, b""]], 5, seq, {})
        assert made == [(1000 + seq).to_bytes(8, "big")]


def test_a_search_for_a_free_id_ends_and_the_next_one_continues_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sections_module, "GENERATED_TRIES_MAX", 10)
    sections = table()
    taken = [[Op.CREATE, number.to_bytes(8, "big"), SA_TIME_END, b""] for number in range(3, 18)]
    sections.apply(taken, 5, 2, {})
    with pytest.raises(RequestError) as caught:
        sections.apply([[Op.CREATE, b"", SA_TIME_END, b""]], 5, 3, {})
    assert caught.value.code == NO_SPACE
    made = sections.apply([[Op.CREATE, b"", SA_TIME_END, b""]], 5, 4, {})
    assert made == [(18).to_bytes(8, "big")]


# -- updates of the service's own


@pytest.mark.parametrize("flags", [1, SA_CKPT_WR_ACTIVE_REPLICA_WEAK])
def test_sections_that_expire_together_are_deleted_in_updates_of_bounded_length(
    flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections_module.SectionTable.expired, "__defaults__", (10,))
    monkeypatch.setattr("ckptd.core.replication.weak_batch.BATCH_SECTIONS_MAX", 25)
    cluster = three_nodes()
    opened = cluster.client("a").open(flags=flags, sections_max=1000)
    at_ns = cluster.hosts["a"].node.context.wall_ns + 500_000_000  # type: ignore[union-attr]
    opened.update(*([Op.CREATE, b"%d" % number, at_ns, b""] for number in range(20)))
    opened.update(*([Op.CREATE, b"%d" % number, at_ns, b""] for number in range(20, 45)))
    cluster.run(700)
    assert opened.read_all() == {}
    for update in cluster.replica("b").log.entries:
        if not update.session:
            assert len(unpack_body(update.body)[0]) <= 25
    cluster.check()
