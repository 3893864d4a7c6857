"""The output of the commands, as tables for people and as plain data for `--json`."""

from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from ckpt_client import Attributes, SectionDescriptor, Status
from ckpt_protocol.descriptions import CheckpointDescription, ClusterDescription, Member
from ckptctl.text_format import (
    json_bytes,
    show_bytes,
    show_duration,
    show_flags,
    show_moment,
    show_size,
    show_state,
)

Replicas = Iterable[tuple[str, bool]]


def replicas_text(replicas: Replicas, active: str | None) -> str:
    """Return the replicas' nodes: the active one with a star, joining ones in brackets."""
    parts = []
    for node_id, in_sync in replicas:
        name = f"{node_id}*" if node_id == active else str(node_id)
        parts.append(name if in_sync else f"({name})")
    return " ".join(parts) or "none"


def _replicas_json(replicas: Replicas) -> list[dict[str, object]]:
    return [{"node": node_id, "in_sync": bool(in_sync)} for node_id, in_sync in replicas]


def _attributes_json(attributes: Attributes) -> dict[str, object]:
    return {"flags_text": show_flags(attributes.flags), **attributes._asdict()}


# -- status


def is_witness(cluster: ClusterDescription) -> bool:
    """Return True if the node that was asked is a witness, which votes and holds no data."""
    return cluster.node_id in cluster.witnesses


class Health(IntEnum):
    """The health of a cluster as the asked node sees it; also the exit code of `ckptctl status --check`."""

    GOOD = 0
    DEGRADED = 1
    """The node serves, but it has an alarm, or a configured node is missing."""

    NOT_SERVING = 2


CAPACITY_ALARMS: Final = ("limits", "memory")
"""Alarms about what is nearly full. Nothing is missing because of them, and no restart ends them."""


def health_of(cluster: ClusterDescription, ignored: Collection[str] = ()) -> tuple[Health, str]:
    """Return the health, and one line about what is wrong ("" if nothing is); ignore the alarms `ignored`."""
    alarms = "; ".join(f"alarm {name}: {text}" for name, text in cluster.alarms if name not in ignored)
    if is_witness(cluster):
        # A witness learns of the members too late: only a node with data can say whether all are there.
        wrong = alarms or (
            "" if cluster.node_id in cluster.voting_witnesses else "this witness does not vote yet"
        )
    elif not cluster.serving:
        return Health.NOT_SERVING, f"not serving: {cluster.waiting_for or 'no view yet'}"
    else:
        absent = _absent(cluster)
        wrong = "; ".join(filter(None, (f"absent: {', '.join(absent)}" if absent else "", alarms)))
    return (Health.DEGRADED, wrong) if wrong else (Health.GOOD, "")


def _absent(cluster: ClusterDescription) -> list[str]:
    """Return the configured nodes that are not in the view, and the witnesses that do not vote."""
    there = {*_members(cluster), *cluster.witnesses}
    nodes = [node_id for node_id in cluster.configured if node_id not in there]
    return nodes + [node_id for node_id in cluster.witnesses if node_id not in cluster.voting_witnesses]


def _members(cluster: ClusterDescription) -> dict[str, Member]:
    return {member.node_id: member for member in cluster.members}


def print_cluster(console: Console, cluster: ClusterDescription, counters: bool = False) -> None:
    """Print the cluster as the node that was asked sees it."""
    state, style = f"NOT serving: {escape(cluster.waiting_for or 'no view yet')}", "bold red"
    if cluster.serving:
        state, style = "serving", ""
    elif is_witness(cluster):
        state, style = "witness: it votes and holds no data", ""
    console.print(f"node {escape(cluster.node_id or '?')}: {state}", style=style)
    for name, text in cluster.alarms:
        console.print(f"ALARM {escape(name)}: {escape(text)}", style="bold red")
    facts = [f"epoch {cluster.epoch}", f"coordinator {cluster.coordinator or 'none'}"]
    facts.append(f"arbiter {cluster.arbiter or '?'}")
    if cluster.on_silent_peer:
        facts.append(f"on_silent_peer {cluster.on_silent_peer}")
    console.print(escape(", ".join(facts)))
    waits_for = ", ".join(cluster.feature_level_waits_for)
    if waits_for:
        text = f"leading and conditions are refused until {waits_for} was seen with this version of ckptd"
        console.print(escape(text))
    for leader in cluster.leaders_unseen:
        led = f"{show_bytes(leader.checkpoint)} is led by {leader.program}"
        text = f"{led}; its death is not seen at once, so the next one waits for its ttl"
        console.print(escape(text))
    console.print(_nodes_grid(cluster))
    if counters:
        console.print(_counters_grid(cluster))
        console.print(_limits_grid(cluster))


def _nodes_grid(cluster: ClusterDescription) -> Grid:
    grid = Grid(
        "node", "state", "vote", "joined in epoch", "incarnation", "addresses", box=None, pad_edge=False
    )
    members = _members(cluster)
    for node_id in sorted({*members, *cluster.configured, *cluster.voters, *cluster.witnesses}):
        vote = "yes" if node_id in cluster.voters else "no" if cluster.voters else ""
        if node_id in cluster.witnesses and node_id not in cluster.voting_witnesses:
            vote = "not now"
        member = members.get(node_id)
        if member is not None:
            row = ["member", vote, str(member.join_epoch), str(member.incarnation)]
            row.append(escape(" ".join(member.addresses)))
        else:
            # It has just answered, so it is not absent.
            state = "no view" if node_id == cluster.node_id else "absent"
            row = ["witness" if node_id in cluster.witnesses else f"[red]{state}[/]", vote, "", "", ""]
        grid.add_row(escape(node_id), *row)
    return grid


def _counters_grid(cluster: ClusterDescription) -> Grid:
    grid = Grid("counter", "value", box=None, pad_edge=False)
    for name, value in sorted(cluster.counters.items()):
        grid.add_row(escape(name), str(value))
    return grid


def _limits_grid(cluster: ClusterDescription) -> Grid:
    grid = Grid("limit", "used", "most", box=None, pad_edge=False)
    for name, used, most in cluster.limits:
        grid.add_row(escape(name), str(used), str(most))
    return grid


def cluster_json(cluster: ClusterDescription) -> dict[str, object]:
    """Return the cluster for JSON, with everything else that the daemon says."""
    names = ("node", "incarnation", "join_epoch", "addresses")
    described: dict[str, object] = dict(cluster.raw)
    described["members"] = [dict(zip(names, member, strict=True)) for member in cluster.members]
    if "alarms" in cluster:
        described["alarms"] = [alarm._asdict() for alarm in cluster.alarms]
    if "limits" in cluster:
        described["limits"] = [usage._asdict() for usage in cluster.limits]
    return described


# -- ls


def print_checkpoints(console: Console, checkpoints: Sequence[CheckpointDescription]) -> None:
    """Print one line for each checkpoint."""
    grid = Grid("name", "kind", "replicas", "opens", "retention", box=None, pad_edge=False)
    for each in checkpoints:
        title = escape(show_bytes(each.name)) + (" (unlinked)" if each.unlinked else "")
        why = f"unavailable: waits for {' '.join(each.waiting_for)}" if each.waiting_for else ""
        if each.closed:
            why = f"not served: {each.closed}"
        grid.add_row(
            title,
            show_flags(each.attributes.flags),
            escape(why) if why else replicas_text(each.replicas, each.active),
            str(each.opens),
            show_duration(each.attributes.retention_ns),
        )
    console.print(grid)
    plural = "" if len(checkpoints) == 1 else "s"
    console.print(f"{len(checkpoints)} checkpoint{plural}; * active, (...) joining", style="dim")


def checkpoints_json(checkpoints: Sequence[CheckpointDescription]) -> list[dict[str, object]]:
    """Return the checkpoints for JSON."""
    return [
        {
            "name": show_bytes(each.name),
            "creation_id": each.creation_id,
            "attributes": _attributes_json(each.attributes),
            "active": each.active,
            "replicas": _replicas_json(each.replicas),
            "opens": each.opens,
            "unlinked": each.unlinked,
            "waiting_for": list(each.waiting_for),
            "closed": each.closed,
        }
        for each in checkpoints
    ]


# -- show


def limits_text(name: str, attributes: Attributes) -> str:
    """Say what the limits of a checkpoint are."""
    return (
        f"{name}: up to {attributes.sections_max:,} sections of up to "
        f"{show_size(attributes.section_bytes_max)}, with keys of up to "
        f"{show_size(attributes.section_id_bytes_max)}"
    )


def limits_json(name: str, attributes: Attributes) -> dict[str, object]:
    """Return the limits of a checkpoint, among its other attributes, for JSON."""
    return {"name": name, "attributes": _attributes_json(attributes)}


def print_checkpoint(
    console: Console, name: str, status: Status, sections: Sequence[SectionDescriptor]
) -> None:
    """Print a checkpoint with its sections."""
    attributes = status.attributes
    facts = Grid(box=None, show_header=False, pad_edge=False)
    facts.add_row("name", escape(name))
    facts.add_row("kind", show_flags(attributes.flags))
    facts.add_row("replicas", replicas_text(status.replicas, status.active) + "   (* active, (...) joining)")
    facts.add_row("sections", f"{status.sections:,} of {attributes.sections_max:,}")
    facts.add_row("memory used", show_size(status.memory_used_bytes))
    facts.add_row("largest section", f"up to {show_size(attributes.section_bytes_max)}")
    facts.add_row("largest id", f"up to {show_size(attributes.section_id_bytes_max)}")
    facts.add_row("retention", show_duration(attributes.retention_ns))
    facts.add_row("opens", f"{status.opens} (this command's among them)")
    console.print(facts)
    if sections:
        grid = Grid("section", "size", "state", "expires", "last update", box=None, pad_edge=False)
        for section in sections:
            grid.add_row(
                escape(show_bytes(section.section_id)) or '"" (default)',
                show_size(section.size_bytes),
                show_state(section.state),
                show_moment(section.expiration_ns),
                show_moment(section.last_update_ns),
            )
        console.print(grid)


def checkpoint_json(name: str, status: Status, sections: Sequence[SectionDescriptor]) -> dict[str, object]:
    """Return a checkpoint with its sections for JSON."""
    return {
        "name": name,
        "attributes": _attributes_json(status.attributes),
        "number_of_sections": status.sections,
        "memory_used_bytes": status.memory_used_bytes,
        "active": status.active,
        "replicas": _replicas_json(status.replicas),
        "opens": status.opens,
        "unlinked": status.unlinked,
        "sections": [
            {
                "key": show_bytes(section.section_id),
                "size_bytes": section.size_bytes,
                "state": show_state(section.state),
                "expiration_ns": section.expiration_ns,
                "last_update_ns": section.last_update_ns,
            }
            for section in sections
        ],
    }


def value_json(name: str, key: bytes, value: bytes) -> dict[str, object]:
    """Return a section's value for JSON."""
    return {"name": name, "key": show_bytes(key), "size_bytes": len(value), "value": json_bytes(value)}
