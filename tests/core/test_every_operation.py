"""Each section operation is known wherever operations are told apart: what forgets one does so silently."""

from typing import Any

import pytest

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.errors import RequestError
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_updates import Ops
from ckptd.core.content import sections
from ckptd.core.content.leadership import Leadership
from ckptd.core.content.memory_growth import growth_of
from ckptd.core.content.sections import SectionTable
from ckptd.core.content.update_log import Update
from ckptd.core.directory.attributes import Attributes
from ckptd.core.requests.change_feed import _changes_of

SAMPLES: dict[int, list[Any]] = {
    Op.CREATE: [Op.CREATE, b"new", SA_TIME_END, b"vv"],
    Op.DELETE: [Op.DELETE, b"k"],
    Op.OVERWRITE: [Op.OVERWRITE, b"k", b"vv"],
    Op.WRITE: [Op.WRITE, b"k", 0, b"vv"],
    Op.EXPIRATION_SET: [Op.EXPIRATION_SET, b"k", 7],
    Op.PUT: [Op.PUT, b"k", b"vv", None],
    Op.PATCH: [Op.PATCH, b"k", 0, b"vv", None],
    Op.REMOVE: [Op.REMOVE, b"k"],
    Op.PIECE: [Op.PIECE, b"k", 2, 0, b"vv", SA_TIME_END, 0],
    Op.REQUIRE: [Op.REQUIRE, b"k", True],
    Op.LEAD: [Op.LEAD, 1, 2, 5 * 10**9, True, False, "app", "host", 7],
    Op.RESIGN: [Op.RESIGN, 1, None],
    Op.REVOKE: [Op.REVOKE, 1, 2],
    Op.TOKEN: [Op.TOKEN, 1, 2, 3, 0],
    Op.EXPIRE_AFTER: [Op.EXPIRE_AFTER, b"k", 7],
    Op.LEADERSHIP: [Op.LEADERSHIP, Leadership(version=5).pack()],
    Op.RESIZE: [Op.RESIZE, 1, 10, 100, 10, 20, 100, 10],
}
OF_LEADERS = (Op.LEAD, Op.RESIGN, Op.REVOKE, Op.TOKEN)
"""They are done, or compared, before the sections are looked at. There they are in a wrong place."""

KEEPS_ITS_SIZE = (Op.EXPIRATION_SET, Op.EXPIRE_AFTER, Op.REQUIRE, *OF_LEADERS)
CHANGES_NO_DATA = (Op.EXPIRATION_SET, Op.EXPIRE_AFTER, Op.REQUIRE, Op.LEADERSHIP, Op.RESIZE, *OF_LEADERS)
OF_THE_SERVICE = (Op.PIECE, Op.LEADERSHIP, Op.RESIZE)
"""Not counted: a client's update was counted when it was gathered."""

NUMBERS = sorted({number for name, number in vars(Op).items() if name.isupper()})


def test_every_operation_has_a_sample_here() -> None:
    assert sorted(SAMPLES) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_every_operation_is_applied_counted_and_reported(number: int) -> None:
    table = SectionTable(Attributes(1, 1000, SA_TIME_END, 10, 100, 10), 0)
    table.apply(Ops([[Op.PUT, b"k", b"v", None]]), 1, 1, {})
    op = SAMPLES[number]
    assert number in sections._HANDLERS
    if number not in OF_THE_SERVICE:
        assert bool(growth_of(Ops([op]), table)) == (number not in KEEPS_ITS_SIZE)
    if number in OF_LEADERS:
        with pytest.raises(RequestError):
            table.apply(Ops([op]), 2, 2, {})
    else:
        table.apply(Ops([[*op]]), 2, 2, {})
    body = pack_body([op]) if number not in OF_THE_SERVICE else pack_body([[op], []])
    update = Update(1, 2, 1, 0 if number in OF_THE_SERVICE else 5, 1, 1, body)
    assert bool(_changes_of(update, 2, 5, weak=False)[0]) == (number not in CHANGES_NO_DATA)
