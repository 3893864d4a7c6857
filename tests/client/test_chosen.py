"""Which sections a tracking reports, and from which page on they are looked for: compared with every id."""

from itertools import product

import pytest

from ckpt_client.requests.chosen import ALL, Chosen
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.limits import TRACK_BYTES_MAX, TRACK_PREFIX_BYTES_MAX

BYTES = b"\x00\x01\xfe\xff"
IDS = [bytes(each) for length in range(4) for each in product(BYTES, repeat=length)]


@pytest.mark.parametrize("exact", [False, True])
def test_pages_begin_before_all_chosen_sections_and_end_after_them(exact: bool) -> None:
    for prefix in IDS:
        chosen = Chosen(prefix, exact)
        wanted = [each for each in IDS if (each == prefix if exact else each.startswith(prefix))]
        assert [each for each in IDS if chosen.covers(each)] == wanted
        if chosen.before is not None:
            assert all(each > chosen.before for each in wanted)
        assert not any(chosen.ends(each) for each in wanted if not exact)
        for each in IDS:
            if chosen.ends(each):
                assert all(one < each for one in wanted)


def test_the_pages_for_one_section_end_with_it() -> None:
    """All sections were read whose ids begin with that of the chosen one; for "", the whole checkpoint."""
    assert Chosen(b"job:1", True).ends(b"job:10")
    assert Chosen(b"", True).ends(b"\x00")
    assert not Chosen(b"job:1").ends(b"job:10")


def test_a_request_has_only_the_fields_that_it_needs() -> None:
    assert unpack_body(ALL.body(7, 3)) == [7, 3]
    assert unpack_body(Chosen(b"p", False, True).body(None, 0)) == [None, 0, True, b"p", False]
    longest = Chosen(bytes(TRACK_PREFIX_BYTES_MAX + 1), True, True)
    assert unpack_body(longest.body(2**63, -(2**63) + 1))[3:] == [bytes(TRACK_PREFIX_BYTES_MAX), False]
    assert len(longest.body(2**64 - 1, -(2**63) + 1)) <= TRACK_BYTES_MAX
