"""What the commands print, as tables for people and as plain data for `--json`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from ckpt_client import SectionDescriptor, Status
from ckpt_client.calls import Attributes
from ckptctl.text import json_bytes, show_bytes, show_duration, show_flags, show_moment, show_size, show_state

Replicas = Iterable[Sequence[Any]]


def replicas_text(replicas: Replicas, active: str | None) -> str:
    """The replicas' nodes: the active one marked with a star, those that join in brackets."""
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


def print_cluster(console: Console, cluster: Mapping[str, Any]) -> None:
    """The view of the node that was asked."""
    state = "serving" if cluster["serving"] else f"NOT serving: {cluster['waiting_for'] or 'no view yet'}"
    console.print(f"node {cluster['node_id']}: {state}", style=None if cluster["serving"] else "bold red")
    coordinator = cluster["coordinator"] or "none"
    console.print(f"epoch {cluster['epoch']}, coordinator {coordinator}, arbiter {cluster['arbiter']}")
    grid = Grid("node", "state", "joined in epoch", "incarnation", "addresses", box=None, pad_edge=False)
    members = {member[0]: member for member in cluster["members"]}
    for node_id in sorted({*members, *cluster["configured"]}):
        if node_id in members:
            _, incarnation, join_epoch, urls = members[node_id][:4]
            grid.add_row(node_id, "member", str(join_epoch), str(incarnation), " ".join(urls))
        else:
            grid.add_row(node_id, "[red]absent[/]", "", "", "")
    console.print(grid)


def cluster_json(cluster: Mapping[str, Any]) -> dict[str, object]:
    """The same."""
    names = ("node", "incarnation", "join_epoch", "addresses")
    members = [dict(zip(names, member, strict=False)) for member in cluster["members"]]
    return {**cluster, "members": members}


# -- ls


def print_checkpoints(console: Console, rows: Sequence[Sequence[Any]]) -> None:
    """One line a checkpoint."""
    grid = Grid("name", "kind", "replicas", "opens", "retention", box=None, pad_edge=False)
    for name, _, fields, active, replicas, opens, unlinked in (row[:7] for row in rows):
        attributes = Attributes(*fields[:6])
        title = escape(show_bytes(name)) + (" (unlinked)" if unlinked else "")
        grid.add_row(
            title,
            show_flags(attributes.flags),
            replicas_text(replicas, active),
            str(opens),
            show_duration(attributes.retention_ns),
        )
    console.print(grid)
    console.print(
        f"{len(rows)} checkpoint{'' if len(rows) == 1 else 's'}; * active, (…) joining", style="dim"
    )


def checkpoints_json(rows: Sequence[Sequence[Any]]) -> list[dict[str, object]]:
    """The same."""
    return [
        {
            "name": show_bytes(name),
            "creation_id": creation_id,
            "attributes": _attributes_json(Attributes(*fields[:6])),
            "active": active,
            "replicas": _replicas_json(replicas),
            "opens": opens,
            "unlinked": unlinked,
        }
        for name, creation_id, fields, active, replicas, opens, unlinked in (row[:7] for row in rows)
    ]


# -- show


def print_checkpoint(
    console: Console, name: str, status: Status, sections: Sequence[SectionDescriptor]
) -> None:
    """A checkpoint with its sections."""
    attributes = status.attributes
    facts = Grid(box=None, show_header=False, pad_edge=False)
    facts.add_row("name", escape(name))
    facts.add_row("kind", show_flags(attributes.flags))
    facts.add_row("replicas", replicas_text(status.replicas, status.active) + "   (* active, (…) joining)")
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
    """The same."""
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
    """A section's value."""
    return {"name": name, "key": show_bytes(key), "size_bytes": len(value), "value": json_bytes(value)}
