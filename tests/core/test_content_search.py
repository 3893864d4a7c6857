"""The search for what stands against smaller limits, compared with a look at all sections at once."""

import random

import pytest

from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.errors import RequestError
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_updates import Ops
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
        scanned, found = search.scan_some(3)
        if found is not None:
            assert found in too_large(table)
            break
        if scanned < 3:
            assert not too_large(table)
            break
        write(rng.randint(0, 2))
    table.end_search()
    assert table.quick_bytes_max == 100
