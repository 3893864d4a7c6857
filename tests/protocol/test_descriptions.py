"""Answers to DESCRIBE as typed values, whatever an older or a later node says."""

from dataclasses import fields
from typing import Any

import pytest
from tests.core.cluster import three_nodes

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.creation_attributes import Attributes
from ckpt_protocol.descriptions import (
    Alarm,
    CheckpointDescription,
    ClusterDescription,
    Member,
    ReplicaDescription,
    UnseenLeader,
    Usage,
    parse_checkpoint_descriptions,
    parse_cluster_description,
)
from ckpt_protocol.errors import FrameError
from ckpt_protocol.parse_requests import Describe

CLUSTER: dict[str, Any] = {
    "node_id": "a",
    "epoch": 7,
    "members": [["a", 12, 3, ["tcp://h1:1"]], ["b", 13, 4, []]],
    "serving": True,
    "witnesses": ["w"],
    "leaders_unseen": [[b"orders", "worker"]],
    "alarms": [["disk", "it is full"]],
    "counters": {"updates": 12},
    "limits": [["sessions", 81, 100]],
}
ROW: list[Any] = [
    b"orders",
    5,
    [1, 6144, 0, 64, 96, 8],
    "b",
    [["a", False], ["b", True]],
    1,
    False,
    ["d"],
    "",
]


def test_the_description_of_a_cluster_has_a_type_for_every_field() -> None:
    cluster = parse_cluster_description(CLUSTER)
    assert (cluster.node_id, cluster.epoch, cluster.serving) == ("a", 7, True)
    assert cluster.members == (Member("a", 12, 3, ("tcp://h1:1",)), Member("b", 13, 4, ()))
    assert cluster.members[0].node_id == "a"
    assert cluster.leaders_unseen == (UnseenLeader(b"orders", "worker"),)
    assert cluster.alarms == (Alarm("disk", "it is full"),)
    assert cluster.counters["updates"] == 12
    assert cluster.limits == (Usage("sessions", 81, 100),)
    assert cluster == parse_cluster_description({**CLUSTER, "later": 1}), "only what is known is compared"


def test_a_field_is_also_there_as_it_arrived() -> None:
    cluster = parse_cluster_description({**CLUSTER, "later": [1]})
    assert cluster["later"] == cluster.raw["later"] == [1]
    assert cluster["alarms"] == [["disk", "it is full"]]
    assert "later" in cluster and "feature_level" not in cluster
    assert "later" not in repr(cluster)


def test_what_an_older_node_leaves_out_counts_as_empty() -> None:
    cluster = parse_cluster_description({})
    assert (cluster.node_id, cluster.epoch, cluster.serving, cluster.members) == ("", 0, False, ())
    assert parse_cluster_description({"witnesses": ["w"]}).voting_witnesses == ("w",)
    assert parse_cluster_description({"witnesses": ["w"], "voting_witnesses": []}).voting_witnesses == ()


@pytest.mark.parametrize("value", [None, 5, "text", True, b"", [], {}, [5], [[]], [["a"]], [["a", [], None]]])
@pytest.mark.parametrize("name", [each.name for each in fields(ClusterDescription) if each.name != "raw"])
def test_a_field_of_another_kind_counts_as_empty_or_as_what_is_left_of_it(name: str, value: Any) -> None:
    found = getattr(parse_cluster_description({**CLUSTER, name: value}), name)
    assert type(found) is type(getattr(parse_cluster_description(CLUSTER), name))


def test_a_cluster_that_is_no_map_is_refused() -> None:
    for payload in (None, [], 5, "cluster"):
        with pytest.raises(FrameError, match="not a map"):
            parse_cluster_description(payload)


def test_the_description_of_a_checkpoint_has_a_type_for_every_field() -> None:
    (orders,) = parse_checkpoint_descriptions([ROW])
    assert orders == CheckpointDescription(
        b"orders",
        5,
        Attributes(1, 6144, 0, 64, 96, 8),
        "b",
        (ReplicaDescription("a", False), ReplicaDescription("b", True)),
        1,
        False,
        ("d",),
        "",
    )
    assert orders.attributes.sync
    assert orders.in_sync_nodes == ("b",)
    assert parse_checkpoint_descriptions([ROW[:7]])[0][7:] == ((), "")
    assert parse_checkpoint_descriptions([[*ROW, "later"]]) == (orders,)


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("value", ["", -1, [5], {}, [["a", 1]], 1.5])
def test_a_checkpoint_with_a_field_of_another_kind_is_refused(place: int, value: Any) -> None:
    with pytest.raises(FrameError):
        parse_checkpoint_descriptions([[*ROW[:place], value, *ROW[place + 1 :]]])


def test_what_a_node_says_is_all_in_the_types() -> None:
    """A field that the node gets has to get an attribute as well."""
    cluster = three_nodes()
    cluster.client("a").open(b"first")
    node = cluster.node("a")
    said = unpack_body(pack_body(node.describe(Describe("cluster", None))))
    described = parse_cluster_description(said)
    assert set(said) == {each.name for each in fields(ClusterDescription)} - {"raw"}
    for name, value in said.items():
        found = getattr(described, name)
        if isinstance(value, list):
            assert [list(each) if isinstance(each, tuple) else each for each in found] == [
                [*row[:3], tuple(row[3])] if name == "members" else row for row in value
            ]
        else:
            assert found == value, name
    rows = unpack_body(pack_body(node.describe(Describe("checkpoints", None))))
    (first,) = parse_checkpoint_descriptions(rows)
    assert len(first) == len(rows[0])
    assert (first.name, first.active, first.in_sync_nodes) == (b"first", "a", ("a", "b", "c"))
