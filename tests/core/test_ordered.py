"""Section ids in byte order, against a sorted list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.core.content import ordered_ids
from ckptd.core.content.ordered_ids import OrderedIds

IDS = st.binary(max_size=2)


@pytest.mark.parametrize("bucket_max", [2, 3, 1000])
@given(st.sets(IDS), st.lists(st.tuples(st.sampled_from(["add", "discard", "take in"]), IDS)), IDS)
def test_it_holds_what_a_sorted_list_would(
    bucket_max: int, before: set[bytes], changes: list[tuple[str, bytes]], after: bytes
) -> None:
    kept, ordered_ids.BUCKET_MAX = ordered_ids.BUCKET_MAX, bucket_max  # type: ignore[misc]
    try:
        held = dict.fromkeys(before)
        ids = OrderedIds(held)
        for change, section_id in changes:
            if change == "add" and section_id not in held:
                held[section_id] = None
                ids.add(section_id)
            elif change == "discard" and section_id in held:
                del held[section_id]
                ids.discard(section_id)
            else:
                ids.sort_some(held, 1)
        while not ids.sort_some(held, 3):
            pass
        assert list(ids.after(None)) == sorted(held)
        assert list(ids.after(after)) == [i for i in sorted(held) if i > after]
    finally:
        ordered_ids.BUCKET_MAX = kept  # type: ignore[misc]


def test_ids_are_taken_in_by_portions() -> None:
    held = dict.fromkeys(b"%d" % number for number in range(25))
    ids = OrderedIds(held)
    assert [ids.sort_some(held, 10) for _ in range(4)] == [False, False, True, True]
    assert list(ids.after(None)) == sorted(held)
