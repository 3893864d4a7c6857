"""Planted bugs: the core raises at one value, after it has changed its state.

A planted bug is a patch of the core, like a mutant. The simulator's hosts and the scenario tests let a node
that raised `PlantedBugError` send its last words and end, as the daemon does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ckptd.core.content.sections import SectionTable
from ckptd.core.node import Node
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.sim.mutants.mutant import Patch
from ckptd.sim.world.host import PlantedBugError

At = Callable[[str, bool], bool]
"""Return True to raise at this node; the second argument is True for the checkpoint's active replica."""


class PlantedBug:
    """A planted bug. `stopped` lists the nodes that it stopped, in order."""

    def __init__(self, value: bytes, at: At) -> None:
        self.value = value
        self.at = at
        self.node_id = ""
        self.as_active = False
        self.stopped: list[str] = []

    def raise_if_hit(self, content: object) -> None:
        """Raise if the content holds the value and this is the right place. Raises: PlantedBugError."""
        if repr(self.value)[2:-1] in repr(content) and self.at(self.node_id, self.as_active):
            self.stopped.append(self.node_id)
            raise PlantedBugError(f"at {self.value!r} on node {self.node_id}")


@contextmanager
def apply_raises_on(value: bytes, at: At) -> Iterator[PlantedBug]:
    """Applying an update with `value` in it raises, with the sections changed and nothing else done."""
    bug, patch = PlantedBug(value, at), Patch()
    handle, submit, apply = Node.handle, ActiveReplica.submit, SectionTable.apply

    def handled(node: Any, *event: Any) -> Any:
        bug.node_id, bug.as_active = node.context.node_id, False
        return handle(node, *event)

    def submitted(active: Any, *request: Any) -> Any:
        bug.as_active = True
        try:
            return submit(active, *request)
        finally:
            bug.as_active = False

    def applied(table: Any, ops: Any, *more: Any, **named: Any) -> Any:
        generated = apply(table, ops, *more, **named)
        bug.raise_if_hit(ops)
        return generated

    patch(Node, "handle", handled)
    patch(ActiveReplica, "submit", submitted)
    patch(SectionTable, "apply", applied)
    try:
        yield bug
    finally:
        patch.restore()


@contextmanager
def commit_raises_on(value: bytes, at: At) -> Iterator[PlantedBug]:
    """The active replica raises when it commits a state that holds `value`; it reports nothing more."""
    bug, patch = PlantedBug(value, at), Patch()
    handle, commit = Node.handle, ActiveReplica._commit

    def handled(node: Any, *event: Any) -> Any:
        bug.node_id, bug.as_active = node.context.node_id, True
        return handle(node, *event)

    def committed(active: Any, seq: int) -> Any:
        commit(active, seq)
        bug.raise_if_hit([update.body for update in active.replica.log.entries])

    patch(Node, "handle", handled)
    patch(ActiveReplica, "_commit", committed)
    try:
        yield bug
    finally:
        patch.restore()


@contextmanager
def copying_raises_on(value: bytes, at: At) -> Iterator[PlantedBug]:
    """A replica raises when a section with `value` is placed in it."""
    bug, patch = PlantedBug(value, at), Patch()
    handle, put_raw = Node.handle, SectionTable.put_raw

    def handled(node: Any, *event: Any) -> Any:
        bug.node_id, bug.as_active = node.context.node_id, False
        return handle(node, *event)

    def put(table: Any, section_id: bytes, section: Any) -> Any:
        put_raw(table, section_id, section)
        bug.raise_if_hit(section.content if section is not None else b"")

    patch(Node, "handle", handled)
    patch(SectionTable, "put_raw", put)
    try:
        yield bug
    finally:
        patch.restore()
