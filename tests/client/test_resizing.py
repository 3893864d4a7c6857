"""Tables that grow and shrink: what a program asks, what it is told, and what other open tables see."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.client.fake_service import FakeNode, FakeService
from tests.client.fixtures import Start, service, start

from ckpt_client import AsyncTable, CheckpointError, Table
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.messages import Kind, Op, answer_error

__all__ = ["service", "start"]

OLD, NEW = (10, 1000, 20), (20, 1000, 40)


@pytest.fixture
def node(start: Start) -> FakeNode:
    return start("a")


@pytest.fixture
def table(node: FakeNode) -> Iterator[Table]:
    with Table("phones", *OLD, address=node.url) as opened:
        yield opened


def limits_of(table: Table | AsyncTable) -> tuple[int, ...]:
    return tuple(table.attributes[3:])


def resizes(node: FakeNode) -> list[Any]:
    """Return the resizes that a node was asked for."""
    asked = [unpack_body(frame.body) for frame in node.received if frame.kind == Kind.UPDATE]
    return [ops[0][1:] for ops in asked if ops[0][0] == Op.RESIZE]


def refusal(code: int, call: Any, *arguments: Any, **named: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


def test_a_table_is_resized(table: Table, node: FakeNode) -> None:
    table.resize(20, max_section_id_size_bytes=40)
    assert resizes(node) == [[20, None, 40, False]]
    assert (table.maxSections, table.maxSectionSizeBytes, table.maxSectionIdSizeBytes) == NEW
    assert table.attributes.checkpoint_size == 20_000
    table.resize(max_section_size_bytes=2000, timeout=5)
    table["k"] = bytes(2000)


def test_a_refused_resize_says_why(table: Table) -> None:
    table.Write({str(number): "v" for number in range(5)})
    error = refusal(codes.NO_SPACE, table.resize, 4)
    assert error.text == "cannot resize checkpoint 'phones': there are 5 sections"
    assert limits_of(table) == OLD


@pytest.mark.parametrize("wrong", [{}, {"max_sections": -1}, {"max_sections": True}, {"max_sections": "5"}])
def test_a_wrong_limit_is_refused_without_asking(table: Table, node: FakeNode, wrong: Any) -> None:
    asked = len(node.received)
    refusal(codes.INVALID_PARAM, table.resize, **wrong)
    assert len(node.received) == asked


def test_another_open_table_learns_of_it(table: Table, node: FakeNode) -> None:
    with Table("phones", address=node.url) as other:
        other.resize(10, 2000, 20)
        table["k"] = bytes(2000)
        assert limits_of(table) == OLD
        assert table.status().attributes.section_bytes_max == 2000
        assert limits_of(table) == (10, 2000, 20)
        other.resize(10, 100, 20)
        error = refusal(codes.INVALID_PARAM, table.Write, "k", bytes(101))
        assert "maxSectionSize, which is 100" in error.text


def test_an_open_with_former_limits_says_what_is_in_force(
    table: Table, node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    table.resize(*NEW)
    with caplog.at_level(logging.WARNING), Table("phones", *OLD, address=node.url) as other:
        assert limits_of(other) == NEW
    text = (
        "checkpoint 'phones' was resized: maxSections is 20 now, not 10; maxSectionIdSize is 40 now, not 20"
    )
    assert text.replace("; ", ", ") in caplog.text
    caplog.clear()
    with Table("phones", *NEW, address=node.url), Table("phones", address=node.url):
        assert "resized" not in caplog.text


def test_a_table_grows_when_it_is_opened(table: Table, node: FakeNode) -> None:
    refusal(codes.EXIST, Table, "phones", *NEW, address=node.url)
    with Table("phones", *NEW, address=node.url, grow=True) as grown:
        assert resizes(node) == [[*NEW, True]]
        assert limits_of(grown) == NEW
    with Table("phones", 15, 2000, 20, address=node.url, grow=True) as grown:
        assert limits_of(grown) == (20, 2000, 40)
    with Table("phones", *OLD, address=node.url, grow=True) as again:
        assert limits_of(again) == (20, 2000, 40)
    assert len(resizes(node)) == 2, "nothing has to grow for the last one"


def test_a_table_that_does_not_exist_is_created_as_it_is_to_grow(node: FakeNode) -> None:
    with Table("new", *NEW, address=node.url, grow=True) as made:
        assert limits_of(made) == NEW
    assert not resizes(node)


def test_a_table_that_cannot_grow_is_not_open(node: FakeNode, service: FakeService) -> None:
    with Table("phones", *OLD, address=node.url):

        def refuse(node: FakeNode, link: Any, frame: Any) -> bool:
            if frame.kind != Kind.UPDATE:
                return False
            link.answer(frame.a, answer_error(codes.NOT_SUPPORTED))
            return True

        node.misbehave = refuse
        refusal(codes.NOT_SUPPORTED, Table, "phones", *NEW, address=node.url, grow=True)
        assert service.checkpoints[b"phones"].opens == 1


@pytest.mark.parametrize(
    "wrong", [{"grow": 1}, {"grow": True, "maxRows": None}, {"grow": True, "read_only": True}]
)
def test_a_table_that_grows_has_limits(node: FakeNode, wrong: Any) -> None:
    limits: dict[str, Any] = {"maxRows": 10, "maxRowSizeBytes": 1000, "maxRowKeySizeBytes": 20}
    refusal(codes.INVALID_PARAM, Table, "phones", **{**limits, **wrong}, address=node.url)
    refusal(codes.INVALID_PARAM, Table, "phones", grow=True, address=node.url)


def test_a_collocated_table_grows_with_its_active_replica(node: FakeNode) -> None:
    flags = 2 | 8
    with Table("c", *OLD, flags, address=node.url), Table("c", *NEW, flags, address=node.url, grow=True) as b:
        assert limits_of(b) == NEW
        assert b.GetActiveStatus()


async def test_an_async_table_is_resized_and_grows(
    node: FakeNode, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    table = await AsyncTable.open("phones", *OLD, address=node.url)
    await table.resize(20, max_section_id_size_bytes=40)
    assert (table.max_sections, table.max_section_size_bytes, table.max_section_id_size_bytes) == NEW
    with caplog.at_level(logging.WARNING):
        other = await AsyncTable.open("phones", *OLD, address=node.url)
    assert "maxSections is 20 now, not 10" in caplog.text
    grown = await AsyncTable.open("phones", 5, 2000, 5, address=node.url, grow=True)
    assert limits_of(grown) == (20, 2000, 40)
    assert (await other.status()).attributes == grown.attributes == other.attributes

    def refuse(node: FakeNode, link: Any, frame: Any) -> bool:
        if frame.kind != Kind.UPDATE:
            return False
        link.answer(frame.a, answer_error(codes.NOT_SUPPORTED))
        return True

    node.misbehave = refuse
    with pytest.raises(CheckpointError) as caught:
        await AsyncTable.open("phones", 30, 30, 30, address=node.url, grow=True)
    assert caught.value.code == codes.NOT_SUPPORTED
    assert service.checkpoints[b"phones"].opens == 3, "the handle of the open that failed is closed"
    for opened in (table, other, grown):
        await opened.close()
