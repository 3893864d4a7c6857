"""Short names for scenarios: attributes, flags, the code of a refusal, the calls of callbacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ckpt_client import SaAisError
from ckpt_client.saf import Checkpoint, CheckpointCallbacks, CheckpointCreationAttributes, SectionDescriptor
from ckpt_client.saf.checkpoint import SectionIteration
from ckpt_protocol.codes import SaAisErrorT, code_name
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_CHECKPOINT_WRITE,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_ONE_MINUTE,
)

if TYPE_CHECKING:
    from tests.conformance.world import World

READ = SA_CKPT_CHECKPOINT_READ
WRITE = SA_CKPT_CHECKPOINT_WRITE
CREATE = SA_CKPT_CHECKPOINT_CREATE
ALL_MODES = READ | WRITE | CREATE

SYNC = SA_CKPT_WR_ALL_REPLICAS
ASYNC = SA_CKPT_WR_ACTIVE_REPLICA
WEAK = SA_CKPT_WR_ACTIVE_REPLICA_WEAK
COLLOCATED = SA_CKPT_CHECKPOINT_COLLOCATED
KINDS = (SYNC, ASYNC, WEAK, SYNC | COLLOCATED, ASYNC | COLLOCATED, WEAK | COLLOCATED)
"""Every legal set of creation flags."""

SECTION_BYTES = 100
SECTIONS = 10


def attributes(**changed: Any) -> CheckpointCreationAttributes:
    """Return creation attributes: synchronous, 10 sections of 100 bytes with ids of 16, kept for a minute.

    `changed`: the attributes that differ. If `checkpoint_size` is not among them, it is what the sections
    need.
    """
    named = {
        "creation_flags": SYNC,
        "retention_duration": SA_TIME_ONE_MINUTE,
        "max_sections": SECTIONS,
        "max_section_size": SECTION_BYTES,
        "max_section_id_size": 16,
        **changed,
    }
    named.setdefault("checkpoint_size", named["max_sections"] * named["max_section_size"])
    return CheckpointCreationAttributes(**named)


def opened(world: "World", kind: int = SYNC, node: str = "a", **changed: Any) -> Checkpoint:
    """Open a new checkpoint of this kind, with an active replica, at this node."""
    checkpoint = world.open(node, creation_flags=kind, **changed)
    if kind in (ASYNC | COLLOCATED, WEAK | COLLOCATED):
        checkpoint.active_replica_set()
    return checkpoint


def rest(iteration: SectionIteration) -> Iterator[SectionDescriptor]:
    """Return the rest of an iteration, which is at its end then."""
    while True:
        try:
            section = iteration.next()
        except SaAisError as error:
            assert error.code == SaAisErrorT.SA_AIS_ERR_NO_SECTIONS, error
            return
        yield section


def ids(iteration: SectionIteration) -> list[bytes]:
    """Return the ids of the rest of an iteration, in its order."""
    return [section.section_id for section in rest(iteration)]


@contextmanager
def refused(code: str, index: int | None = None) -> Iterator[pytest.ExceptionInfo[SaAisError]]:
    """Check that the block is refused with this code, named without its prefix ("NOT_EXIST").

    `index`: the element that is at fault, if that matters.
    """
    wanted = SaAisErrorT[f"SA_AIS_ERR_{code}"]
    with pytest.raises(SaAisError) as caught:
        yield caught
    error = caught.value
    assert error.code == wanted, f"{code_name(error.code)} ({error.text}), not {wanted.name}"
    if index is not None:
        assert error.erroneous_vector_index == index


def outcome(call: Any) -> str:
    """ "OK", or the code that a call is refused with, without its prefix."""
    try:
        call()
    except SaAisError as error:
        return code_name(error.code).removeprefix("SA_AIS_ERR_")
    return "OK"


class Heard:
    """Records the calls of callbacks, in order. Pass it as `world.service(callbacks=heard.callbacks)`."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, Any, SaAisErrorT]] = []
        self.synchronized: list[tuple[int, SaAisErrorT]] = []
        self.tracked: list[tuple[Any, list[Any]]] = []
        self.callbacks = CheckpointCallbacks(
            checkpoint_open=lambda *told: self.opened.append(told),
            checkpoint_synchronize=lambda *told: self.synchronized.append(told),
            checkpoint_track=lambda *told: self.tracked.append(told),
        )
