"""The search for what stands against smaller limits, compared with a look at all sections at once."""

import random

import pytest

from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.errors import RequestError
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_updates import Ops
from ckptd.core.content.resize_state import ResizeState
from ckptd.core.content.sections import SectionTable
from ckptd.core.directory.attributes import Attributes, Limits

ASKED = Limits(100, 10, 6)


def too_large(table: SectionTable) -> list[bytes]:
    return [
        section_id
        for section_id, section in table.sections.items()
        if len(section.content) > ASKED.section_bytes_max or len(section_id) > ASKED.section_id_bytes_max
    ]


def random_op(rng: random.Random, large: float) -> list[object]:
    section_id = b"s" * (7 if rng.random() < large else 1) + b"%d" % rng.randrange(20)
    content = bytes(rng.randint(11, 20) if rng.random() < large else rng.randint(0, 10))
    offset = rng.randint(0, 10) if rng.random() < large else 0
    return rng.choice(
        (
            [Op.PUT, section_id, content, None],
            [Op.PUT, section_id, content, SA_TIME_END],
            [Op.PATCH, section_id, offset, content, None],
            [Op.CREATE, section_id, SA_TIME_END, content],
            [Op.OVERWRITE, section_id, content],
            [Op.WRITE, section_id, offset, content],
            [Op.PIECE, section_id, len(content), 0, content, SA_TIME_END, 0],
            [Op.DELETE, section_id],
            [Op.DELETE, section_id],
        )
    )


@pytest.mark.parametrize("seed", range(300))
def test_it_finds_a_section_that_is_too_large_if_there_is_one(seed: int) -> None:
    rng = random.Random(seed)
    large = rng.choice((0.0, 0.02, 0.2))
    table = SectionTable(Attributes(1, 10_000, SA_TIME_END, 100, 100, 64), 0)

    def write(count: int) -> None:
        for _ in range(count):
            try:
                table.apply(Ops([random_op(rng, large) for _ in range(rng.randint(1, 3))]), 1, 1, {})
            except RequestError:
                continue

    write(60)
    search = table.begin_search(table.sections, ASKED)
    while True:
        _, found = search.scan_some(3)
        if found is not None:
            assert found in too_large(table)
            break
        if search.complete:
            assert not too_large(table)
            break
        write(rng.randint(0, 2))
    table.end_search()
    assert table.quick_bytes_max == 100


def test_what_was_written_during_the_search_is_scanned_in_one_portion() -> None:
    """A client that wrote faster than the search went on kept it from its end, and made it hold ever more ids.

    Each of them was then found behind the places of all that had been scanned before it.
    """
    table = SectionTable(Attributes(1, 10_000_000, SA_TIME_END, 100_000, 100, 64), 0)
    table.apply(Ops([[Op.PUT, b"s", b"", None]]), 1, 1, {})
    search = table.begin_search(table.sections, ASKED)
    for number in range(20_000):
        ops: list[list[object]] = [[Op.PUT, b"%d" % number, bytes(11), None], [Op.DELETE, b"%d" % number]]
        table.apply(Ops(ops), 1, 1, {})
    assert search.scan_some(3) == (20_001, None)
    assert search.complete


def test_limits_from_another_content_are_those_of_all_its_updates() -> None:
    table = SectionTable(Attributes(1, 10_000, SA_TIME_END, 100, 100, 64), 0)
    table.apply(Ops([[Op.RESIZE, 1, 100, 100, 64, 200, 100, 64]]), 1, 50, {})
    other = ResizeState(3, Limits(7, 7, 7), Limits(9, 9, 9))
    table.replace_limits(other, 20)
    assert (table.resize_state, table.limits_before[0]) == (other, 20)
    assert table.committed_limits(10) == table.committed_limits(20) == (7, 7, 7)
