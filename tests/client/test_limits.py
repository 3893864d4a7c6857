"""What one call may carry: too much is refused before anything is sent; what the limits promise fits."""

from typing import Any

import pytest

from ckpt_client.checkpoint.transactions import Changes
from ckpt_client.errors import SaAisError
from ckpt_client.requests import table_requests
from ckpt_client.requests.expiry import NEVER
from ckpt_client.requests.table_requests import Attributes, pairs_of
from ckpt_client.saf import saf_requests
from ckpt_protocol import codes, limits
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.limits import (
    CALL_BYTES_MAX,
    FRAME_BYTES_MAX,
    SECTION_BYTES_MAX,
    SECTION_ID_BYTES_MAX,
    UPDATE_BODY_BYTES_MAX,
)
from ckpt_protocol.messages import FORWARD_ROUTE

ID = b"i" * SECTION_ID_BYTES_MAX
SECTION = bytes(SECTION_BYTES_MAX)
LARGEST = Attributes(1, 2**62, 0, 100, 2 * SECTION_BYTES_MAX, SECTION_ID_BYTES_MAX)


def patches(values: Any) -> bytes:
    """One update that writes several sections, as ASP's `Table` does."""
    changes = Changes(LARGEST)
    for key, value in pairs_of(values):
        changes.patch(key, value, NEVER)
    return changes.body


def refused_with(call: Any, *arguments: Any) -> SaAisError:
    with pytest.raises(SaAisError) as caught:
        call(*arguments)
    assert caught.value.code == codes.NO_RESOURCES, caught.value
    return caught.value


def test_the_largest_section_with_the_longest_id_is_one_update_of_every_call() -> None:
    for body in (
        table_requests.put_body(LARGEST, ID, SECTION, SA_TIME_END),
        patches({ID: SECTION}),
        saf_requests.section_create(ID, SA_TIME_END, SECTION, LARGEST.section_bytes_max).body,
        saf_requests.overwrite(ID, SECTION, LARGEST.section_bytes_max).body,
        saf_requests.write([(ID, SECTION, 0)], LARGEST.section_bytes_max).body,
    ):
        assert len(ID) + len(SECTION) < len(body) <= UPDATE_BODY_BYTES_MAX
        assert len(body) + FORWARD_ROUTE.size + 100 < FRAME_BYTES_MAX


def test_a_larger_section_than_the_service_keeps_is_refused_here_whatever_the_checkpoint_says() -> None:
    for more in (SECTION + b"x", bytearray(SECTION + b"x")):
        refused_with(table_requests.put_body, LARGEST, b"k", more, None)
        refused_with(patches, {b"k": more})
        refused_with(saf_requests.section_create, b"k", SA_TIME_END, more, LARGEST.section_bytes_max)
        refused_with(saf_requests.overwrite, b"k", more, LARGEST.section_bytes_max)
        assert refused_with(saf_requests.write, [(b"k", more, 0)], LARGEST.section_bytes_max).index == 0


def test_what_surrounds_ids_and_data_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiny operations: their ids and data fit a call, their frame would not fit the node."""
    ops = 1_000
    body_bytes = len(patches([(b"k", b"v")] * ops))
    assert body_bytes > 8 * 2 * ops
    monkeypatch.setattr(table_requests, "UPDATE_BODY_BYTES_MAX", body_bytes)
    patches([(b"k", b"v")] * ops)
    monkeypatch.setattr(table_requests, "UPDATE_BODY_BYTES_MAX", body_bytes - 1)
    refused_with(patches, [(b"k", b"v")] * ops)
    body_bytes = len(saf_requests.write([(b"k", b"v", 0)] * ops, 10).body)
    monkeypatch.setattr(table_requests, "UPDATE_BODY_BYTES_MAX", body_bytes - 1)
    refused_with(saf_requests.write, [(b"k", b"v", 0)] * ops, 10)


def test_the_limits_fit_together() -> None:
    assert SECTION_ID_BYTES_MAX + SECTION_BYTES_MAX <= CALL_BYTES_MAX < UPDATE_BODY_BYTES_MAX
    assert UPDATE_BODY_BYTES_MAX + limits.PAGE_BYTES_MAX < FRAME_BYTES_MAX
