"""The output of the commands, as tables for people and as plain data for `--json`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from ckpt_client import SectionDescriptor, Status
from ckpt_client.session.table_requests import Attributes
from ckptctl.text_format import (
    json_bytes,
    show_bytes,
    show_duration,
    show_flags,
    show_moment,
    show_size,
    show_state,
)

Replicas = Iterable[Sequence[Any]]


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


def is_witness(cluster: Mapping[str, Any]) -> bool:
    """Return True if the node that was asked is a witness, which votes and holds no data."""
    return cluster.get("node_id") in _list(cluster, "witnesses")


class Health(IntEnum):
    """The health of a cluster as the asked node sees it; also the exit code of `ckptctl status --check`."""

    GOOD = 0
    DEGRADED = 1
    """The node serves, but it has an alarm, or a configured node is missing."""

    NOT_SERVING = 2


CAPACITY_ALARMS: Final = ("limits", "memory")
"""Alarms about what is nearly full. Nothing is missing because of them, and no restart ends them."""


def health_of(cluster: Mapping[str, Any], ignored: Collection[str] = ()) -> tuple[Health, str]:
    """Return the health, and one line about what is wrong ("" if nothing is); ignore the alarms `ignored`."""
    alarms = "; ".join(f"alarm {name}: {text}" for name, text in _alarms(cluster) if name not in ignored)
    if is_witness(cluster):
        # A witness learns of the members too late: only a node with data can say whether all are there.
        wrong = alarms or ("" if cluster["node_id"] in _voting(cluster) else "this witness does not vote yet")
    elif not cluster.get("serving"):
        return Health.NOT_SERVING, f"not serving: {cluster.get('waiting_for') or 'no view yet'}"
    else:
        absent = _absent(cluster)
        wrong = "; ".join(filter(None, (f"absent: {', '.join(absent)}" if absent else "", alarms)))
    return (Health.DEGRADED, wrong) if wrong else (Health.GOOD, "")


def _voting(cluster: Mapping[str, Any]) -> list[Any]:
    return _list(cluster, "voting_witnesses" if "voting_witnesses" in cluster else "witnesses")


def _absent(cluster: Mapping[str, Any]) -> list[str]:
    """Return the configured nodes that are not in the view, and the witnesses that do not vote."""
    witnesses = _list(cluster, "witnesses")
    there = {*_members(cluster), *map(str, witnesses)}
    nodes = [str(node_id) for node_id in _list(cluster, "configured") if str(node_id) not in there]
    return nodes + [str(node_id) for node_id in witnesses if node_id not in _voting(cluster)]


def _list(cluster: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list in the answer; [] if an older or newer daemon leaves it out or sends something else."""
    found = cluster.get(key)
    return found if isinstance(found, list) else []


def _alarms(cluster: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(alarm[0]), " ".join(map(str, alarm[1:])))
        if isinstance(alarm, list) and alarm
        else (str(alarm), "")
        for alarm in _list(cluster, "alarms")
    ]


def _members(cluster: Mapping[str, Any]) -> dict[str, list[Any]]:
    rows = [row for row in _list(cluster, "members") if isinstance(row, list) and row]
    return {str(row[0]): [*row, "", "", []][:4] if len(row) < 4 else row[:4] for row in rows}


def print_cluster(console: Console, cluster: Mapping[str, Any], counters: bool = False) -> None:
    """Print the cluster as the node that was asked sees it."""
    waiting_for = escape(str(cluster.get("waiting_for") or "no view yet"))
    state, style = f"NOT serving: {waiting_for}", "bold red"
    if cluster.get("serving"):
        state, style = "serving", ""
    elif is_witness(cluster):
        state, style = "witness: it votes and holds no data", ""
    console.print(f"node {escape(str(cluster.get('node_id', '?')))}: {state}", style=style)
    for name, text in _alarms(cluster):
        console.print(f"ALARM {escape(name)}: {escape(text)}", style="bold red")
    facts = [f"epoch {cluster.get('epoch', '?')}", f"coordinator {cluster.get('coordinator') or 'none'}"]
    facts.append(f"arbiter {cluster.get('arbiter', '?')}")
    if cluster.get("on_silent_peer"):
        facts.append(f"on_silent_peer {cluster['on_silent_peer']}")
    console.print(escape(", ".join(facts)))
    waits_for = ", ".join(map(str, _list(cluster, "feature_level_waits_for")))
    if waits_for:
        text = f"leading and conditions are refused until {waits_for} was seen with this version of ckptd"
        console.print(escape(text))
    for name, program in _leaders_unseen(cluster):
        text = f"{name} is led by {program}; its death is not seen at once, so the next one waits for its ttl"
        console.print(escape(text))
    console.print(_nodes_grid(cluster))
    if counters:
        console.print(_counters_grid(cluster))
        console.print(_limits_grid(cluster))


def _leaders_unseen(cluster: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [row for row in _list(cluster, "leaders_unseen") if isinstance(row, list) and len(row) >= 2]
    return [(show_bytes(row[0]), str(row[1])) for row in rows if isinstance(row[0], bytes)]


def _nodes_grid(cluster: Mapping[str, Any]) -> Grid:
    grid = Grid(
        "node", "state", "vote", "joined in epoch", "incarnation", "addresses", box=None, pad_edge=False
    )
    members = _members(cluster)
    voters, witnesses = _list(cluster, "voters"), _list(cluster, "witnesses")
    voting = _voting(cluster)
    for node_id in sorted({*members, *map(str, (*_list(cluster, "configured"), *voters, *witnesses))}):
        vote = "yes" if node_id in voters else "no" if voters else ""
        if node_id in witnesses and node_id not in voting:
            vote = "not now"
        if node_id in members:
            _, incarnation, join_epoch, urls = members[node_id]
            addresses = " ".join(map(str, urls if isinstance(urls, list) else [urls]))
            row = ["member", vote, str(join_epoch), str(incarnation), escape(addresses)]
        else:
            state = (
                "no view" if node_id == cluster.get("node_id") else "absent"
            )  # It has just answered, so it is not absent.
            row = ["witness" if node_id in witnesses else f"[red]{state}[/]", vote, "", "", ""]
        grid.add_row(escape(node_id), *row)
    return grid


def _counters_grid(cluster: Mapping[str, Any]) -> Grid:
    grid = Grid("counter", "value", box=None, pad_edge=False)
    found = cluster.get("counters")
    for name, value in sorted(found.items(), key=str) if isinstance(found, Mapping) else ():
        grid.add_row(escape(str(name)), escape(str(value)))
    return grid


def _limits_grid(cluster: Mapping[str, Any]) -> Grid:
    grid = Grid("limit", "used", "most", box=None, pad_edge=False)
    for name, used, most in _limits(cluster):
        grid.add_row(*(escape(str(each)) for each in (name, used, most)))
    return grid


def _limits(cluster: Mapping[str, Any]) -> list[list[Any]]:
    return [row for row in _list(cluster, "limits") if isinstance(row, list) and len(row) == 3]


def cluster_json(cluster: Mapping[str, Any]) -> dict[str, object]:
    """Return the cluster for JSON, with everything else that the daemon says."""
    names = ("node", "incarnation", "join_epoch", "addresses")
    described: dict[str, object] = dict(cluster)
    described["members"] = [dict(zip(names, row, strict=False)) for row in _members(cluster).values()]
    if "alarms" in cluster:
        described["alarms"] = [{"name": name, "text": text} for name, text in _alarms(cluster)]
    if "limits" in cluster:
        described["limits"] = [{"name": row[0], "used": row[1], "most": row[2]} for row in _limits(cluster)]
    return described


# -- ls


def _waiting_for(entry: Sequence[Any]) -> list[Any]:
    """Return the nodes for whose return an unavailable checkpoint waits; [] if it is available."""
    return list(entry[7]) if len(entry) > 7 and isinstance(entry[7], list) else []


def _closed_since(entry: Sequence[Any]) -> str:
    """Return why a checkpoint is not served; "" if it is."""
    return entry[8] if len(entry) > 8 and isinstance(entry[8], str) else ""


def print_checkpoints(console: Console, rows: Sequence[Sequence[Any]]) -> None:
    """Print one line for each checkpoint."""
    grid = Grid("name", "kind", "replicas", "opens", "retention", box=None, pad_edge=False)
    for entry in rows:
        name, _, fields, active, replicas, opens, unlinked = entry[:7]
        attributes = Attributes(*fields[:6])
        title = escape(show_bytes(name)) + (" (unlinked)" if unlinked else "")
        holders = " ".join(map(str, _waiting_for(entry)))
        why = f"unavailable: waits for {holders}" if holders else ""
        if _closed_since(entry):
            why = f"not served: {_closed_since(entry)}"
        grid.add_row(
            title,
            show_flags(attributes.flags),
            escape(why) if why else replicas_text(replicas, active),
            str(opens),
            show_duration(attributes.retention_ns),
        )
    console.print(grid)
    console.print(
        f"{len(rows)} checkpoint{'' if len(rows) == 1 else 's'}; * active, (...) joining", style="dim"
    )


def checkpoints_json(rows: Sequence[Sequence[Any]]) -> list[dict[str, object]]:
    """Return the checkpoints for JSON."""
    return [
        {
            "name": show_bytes(name),
            "creation_id": creation_id,
            "attributes": _attributes_json(Attributes(*fields[:6])),
            "active": active,
            "replicas": _replicas_json(replicas),
            "opens": opens,
            "unlinked": unlinked,
            "waiting_for": _waiting_for(entry),
            "closed": _closed_since(entry),
        }
        for entry in rows
        for name, creation_id, fields, active, replicas, opens, unlinked in (entry[:7],)
    ]


# -- show


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
