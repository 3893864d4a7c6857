"""Views: who joins, stays and leaves, and what may be concluded from a view's past."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.limits import VIEW_BYTES_MAX
from ckptd.core import view as view_rules
from ckptd.core.parse_views import parse_view
from ckptd.core.view import (
    PAST_MEMBERSHIPS_PER_NODE_MAX,
    Member,
    PastMembership,
    View,
    bootstrap_view,
    last_epoch_of_membership,
    served_by_earlier_incarnations,
    succession,
    successor_view,
    was_member,
)


def served_between(view: View, installed: dict[str, int], before: dict[str, int] | None = None) -> bool:
    """As the rule, where the members' disks tell nothing of their earlier starts: those may have served."""
    return view_rules.may_have_served_between(
        view, installed, before or dict.fromkeys(view.members, view.epoch)
    )


def history(*memberships: dict[str, int], installed: bool = False) -> View:
    """The last of the views of epochs 1, 2, ... with these members (node id to incarnation).

    `installed`: each was installed by who proposed the next.
    """
    view = bootstrap_view(1, memberships[0])
    for epoch, members in enumerate(memberships[1:], 2):
        view = successor_view(view, epoch, members, installed_epoch=epoch - 1 if installed else 0)
    return view


A, B, C = {"a": 1}, {"b": 1}, {"c": 1}


def test_all_nodes_join_in_the_bootstrap_view() -> None:
    view = bootstrap_view(5, {"b": 2, "a": 1})
    assert view == View(5, {"a": Member(1, 5), "b": Member(2, 5)}, (), 5)
    assert list(view.members) == ["a", "b"]


def test_a_continuous_member_keeps_its_join_epoch_and_a_new_one_joins_now() -> None:
    view = successor_view(bootstrap_view(5, A | B), 6, C | A)
    assert view.members == {"a": Member(1, 5), "c": Member(1, 6)}
    assert view.past_memberships == (PastMembership("b", 1, 5, 5),)
    assert (view.epoch, view.bootstrap_epoch) == (6, 5)


def test_a_restarted_node_joins_again_because_it_has_no_data() -> None:
    view = successor_view(bootstrap_view(5, A | B), 6, A | {"b": 2})
    assert view.members["b"] == Member(2, 6)
    assert view.past_memberships == (PastMembership("b", 1, 5, 5),)
    assert view.includes("b", 2)
    assert not view.includes("b", 1)
    assert not view.includes("z", 1)


def test_a_node_that_comes_back_joins_again_and_its_past_membership_is_remembered() -> None:
    view = history(A | B, A, A, A | B)
    assert view.members["b"] == Member(1, 4)
    assert view.past_memberships == (PastMembership("b", 1, 1, 1),)


def test_a_view_does_not_change_when_another_follows() -> None:
    view = bootstrap_view(1, A | B)
    successor_view(view, 2, A)
    assert view == bootstrap_view(1, A | B)


def test_departures_are_bounded_per_node_and_the_newest_are_kept() -> None:
    memberships = [A | B if epoch % 2 else A for epoch in range(1, 60)]
    view = history(*memberships, A | C, A, installed=True)
    stays = [past for past in view.past_memberships if past.node_id == "b"]
    assert len(stays) == PAST_MEMBERSHIPS_PER_NODE_MAX
    assert [stay.last_epoch for stay in stays] == list(range(45, 60, 2))
    assert [past.node_id for past in view.past_memberships][-1] == "c"
    view = history(*memberships, A | C, A)
    assert len([d for d in view.past_memberships if d.node_id == "b"]) == 30, (
        "none of these views is known to be over"
    )


def test_a_view_of_many_nodes_that_come_and_go_fits_into_a_vote() -> None:
    """Each of 64 nodes with the longest name comes and goes while no view is installed at all."""
    names = [f"n{number}-{60 * 'x'}" for number in range(64)]
    view = bootstrap_view(1, dict.fromkeys(names, 1))
    for epoch in range(2, 600):
        members = {name: epoch for place, name in enumerate(names) if (place + epoch) % 2}
        view = successor_view(view, epoch, members, installed_epoch=1)
    assert len(pack_body([view.fields()])) <= VIEW_BYTES_MAX
    assert parse_view(unpack_body(pack_body(view.fields()))) == view


def test_the_succession_is_by_join_epoch_then_node_id() -> None:
    view = history(B | C, B | C | A, B | {"c": 2} | A)
    assert succession(view) == ["b", "a", "c"]
    assert view.coordinator == "b"


def test_ordinals_count_the_sorted_members_from_one() -> None:
    view = bootstrap_view(1, C | A)
    assert [view.ordinal(node_id) for node_id in ("a", "c", "b", None)] == [1, 2, 0, 0]


# -- travelling


def test_a_view_is_the_same_after_it_travelled() -> None:
    view = history(A | B | C, A | C, A | B | C, {"a": 1, "b": 2})
    assert parse_view(unpack_body(pack_body(view.fields()))) == view


def test_members_are_sorted_whatever_order_they_travelled_in() -> None:
    fields = bootstrap_view(1, A | B | C).fields()
    fields[1].reverse()
    assert list(parse_view(fields).members) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "fields",
    [
        None,
        3,
        [],
        [1, [], []],
        [1, None, [], 0],
        [1, [["a", 1]], [], 0],
        [1, [], [["a"]], 0],
        ["x", [], [], 0],
    ],
    ids=repr,
)
def test_what_is_no_view_is_the_senders_fault(fields: Any) -> None:
    with pytest.raises(FrameError):
        parse_view(fields)


# -- what the past says


def test_a_node_was_a_member_in_earlier_epochs_that_a_membership_covers() -> None:
    view = history(A | B, A, A | B, A, A | B, A | B)
    assert [epoch for epoch in range(1, 7) if was_member(view, "b", epoch)] == [1, 3, 5, 6]
    assert [epoch for epoch in range(1, 7) if was_member(view, "a", epoch)] == [1, 2, 3, 4, 5, 6]


def test_the_stays_of_an_older_start_are_not_those_of_a_member() -> None:
    view = history(A | B, A, A | {"b": 2})
    assert [epoch for epoch in range(1, 4) if was_member(view, "b", epoch)] == [3]


def test_no_node_served_between_when_every_view_there_had_a_member_that_never_installed_it() -> None:
    view = history(A | B | C, A | B, A | B, A | B | C)
    assert not served_between(view, {"a": 1, "b": 1, "c": 1})
    assert not served_between(view, {"a": 3, "b": 1, "c": 1})


def test_a_node_may_have_served_between_when_all_members_of_a_view_there_are_gone() -> None:
    view = history(A | B | C, C, A | B)
    assert served_between(view, {"a": 1, "b": 1})
    assert not served_between(history(A | B | C, A, A | B), {"a": 1, "b": 1})


def test_views_of_which_nothing_is_known_may_have_served_however_many_they_are() -> None:
    """A COLLECT of an epoch far away took a step for each epoch between: the node served nobody for hours."""
    view = View(2**62, {"a": Member(1, 1), "b": Member(1, 2**62)}, ())
    assert not served_between(view, {"a": 1, "b": 1}), "b was no member, and a never installed any of them"
    assert served_between(view, {"a": 2**61, "b": 2**61}) is False
    gone = View(2**62, {"b": Member(1, 2**62)}, (PastMembership("a", 1, 1, 2**61),))
    assert served_between(gone, {"b": 1})


def _slowly(view: View, installed: dict[str, int], before: dict[str, int]) -> bool:
    """The rule as it is said: every epoch between is looked at."""
    return not all(
        epoch in view.unserved_epochs or view_rules._cannot_have_served(view, epoch, installed, before)
        for epoch in range(max(installed.values()) + 1, view.epoch)
    )


EPOCHS = st.integers(1, 14)


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(2, 3), EPOCHS), min_size=1),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3), EPOCHS, EPOCHS), max_size=4),
    st.lists(EPOCHS, max_size=4),
    st.lists(EPOCHS, min_size=6, max_size=6),
)
def test_looking_where_it_may_change_is_as_good_as_looking_at_every_epoch(
    members: dict[str, tuple[int, int]],
    stays: list[tuple[str, int, int, int]],
    idle: list[int],
    told: list[int],
) -> None:
    past_memberships = tuple(PastMembership(node, start, min(a, b), max(a, b)) for node, start, a, b in stays)
    starts = {node: Member(start, join) for node, (start, join) in sorted(members.items())}
    view = View(15, starts, past_memberships, unserved_epochs=tuple(sorted(set(idle))))
    installed = dict(zip(sorted(members), told, strict=False))
    before = dict(zip(sorted(members), told[3:], strict=False))
    assert view_rules.may_have_served_between(view, installed, before) == _slowly(view, installed, before)


def test_an_older_start_of_a_member_may_have_served_between() -> None:
    view = history(A | B, B, A | {"b": 2})
    assert served_between(view, {"a": 1, "b": 0})


def test_an_older_start_that_never_installed_a_view_did_not_serve_in_it() -> None:
    """Seed 20235: two restarted nodes began anew although the third held all that was ever acknowledged."""
    view = history(A | B | C, A | C, {"a": 2, "c": 2}, {"a": 2} | B | {"c": 2})
    assert not served_between(view, {"a": 0, "b": 1, "c": 0}, {"a": 1, "b": 0, "c": 1})
    assert served_between(view, {"a": 0, "b": 1, "c": 0}, {"a": 2, "b": 0, "c": 2})


def test_one_view_in_which_a_node_may_have_served_is_enough() -> None:
    view = history(A | B | C, A | B, C, A | B)
    assert served_between(view, {"a": 1, "b": 1})
    assert not served_between(view, {"a": 3, "b": 1})


def test_nothing_lies_between_a_view_and_the_one_before_it() -> None:
    assert not served_between(history(A | B, A), {"a": 1})


def test_the_last_epoch_of_a_membership_is_the_views_own_for_a_node_that_never_left() -> None:
    view = history(A | B | C, A | B, A, A | B | C)
    assert last_epoch_of_membership(view, "a", 1, 1) == 4
    assert last_epoch_of_membership(view, "b", 1, 1) == 2
    assert last_epoch_of_membership(view, "c", 1, 1) == 1
    assert last_epoch_of_membership(view, "b", 1, 2) == 2
    assert last_epoch_of_membership(view, "b", 1, 4) == 4


def test_there_is_no_membership_for_another_incarnation_or_an_epoch_outside() -> None:
    view = history(A | B, A, A | {"b": 2})
    assert last_epoch_of_membership(view, "b", 1, 1) == 1
    assert last_epoch_of_membership(view, "b", 2, 1) == 0
    assert last_epoch_of_membership(view, "b", 1, 3) == 0
    assert last_epoch_of_membership(view, "b", 1, 2) == 0
    assert last_epoch_of_membership(view, "z", 1, 1) == 0


def test_what_earlier_incarnations_served_is_known_only_from_their_disks_and_memberships() -> None:
    """Seed 101710: a node at its first start has an empty disk; it was taken for one that may have served for ever.

    The third node, which held everything and was cut off, was not waited for.
    """
    view = bootstrap_view(1, A | B | C)
    for epoch, members in ((4, A | B), (5, B), (6, {"b": 2} | C)):
        view = successor_view(view, epoch, members)
    unknown = 2**62
    assert served_by_earlier_incarnations(view, {"b": 4, "c": unknown}) == 4
    assert served_by_earlier_incarnations(view, {"b": unknown, "c": unknown}) == 5
    assert served_by_earlier_incarnations(bootstrap_view(1, A | B), {"a": unknown, "b": unknown}) == 0
