"""The states of a replica, and what leads from one to the next."""

from enum import Enum, auto
from typing import Final


class ReplicaState(Enum):
    """What a replica holds, and whether it takes updates."""

    CONSISTENT = auto()
    """It holds exactly what the updates up to its seq made, and takes the next ones."""
    RESYNCING = auto()
    """Chunks arrive: its content is not whole. It takes updates for the sections that it has."""
    OUT_OF_SYNC = auto()
    """It cannot follow. It keeps its content, and takes no updates until it joins again."""
    RESYNC_ABANDONED = auto()
    """It cannot follow, and its content is not whole: it left in the middle of a resync."""
    DIVERGED = auto()
    """It refused an update that was ordered: it holds something else. It goes to quarantine at once."""


class ReplicaEvent(Enum):
    """What changes the state of a replica."""

    RESYNC_BEGUN = auto()
    """The first chunk of a resync replaces the content."""
    RESYNC_ENDED = auto()
    """The content is whole: the resync is complete, or it broke off and the old content is restored."""
    LEFT_IN_SYNC_SET = auto()
    """The replica cannot follow, and proposes to leave the in-sync set."""
    READMITTED = auto()
    """The replica may follow again: a view was installed, it asks to join, or it becomes active."""
    REFUSED_UPDATE = auto()
    """The replica refused an update that was ordered."""
    EMPTIED = auto()
    """The content is dropped: it went to quarantine, or there is no memory for it."""


_S, _E = ReplicaState, ReplicaEvent
TRANSITIONS: Final = {
    (_S.CONSISTENT, _E.RESYNC_BEGUN): _S.RESYNCING,
    (_S.CONSISTENT, _E.RESYNC_ENDED): _S.CONSISTENT,
    (_S.CONSISTENT, _E.LEFT_IN_SYNC_SET): _S.OUT_OF_SYNC,
    (_S.CONSISTENT, _E.READMITTED): _S.CONSISTENT,
    (_S.CONSISTENT, _E.REFUSED_UPDATE): _S.DIVERGED,
    (_S.CONSISTENT, _E.EMPTIED): _S.CONSISTENT,
    (_S.RESYNCING, _E.RESYNC_BEGUN): _S.RESYNCING,
    (_S.RESYNCING, _E.RESYNC_ENDED): _S.CONSISTENT,
    (_S.RESYNCING, _E.LEFT_IN_SYNC_SET): _S.RESYNC_ABANDONED,
    (_S.RESYNCING, _E.READMITTED): _S.RESYNCING,
    (_S.RESYNCING, _E.EMPTIED): _S.CONSISTENT,
    (_S.OUT_OF_SYNC, _E.RESYNC_BEGUN): _S.RESYNC_ABANDONED,
    (_S.OUT_OF_SYNC, _E.RESYNC_ENDED): _S.OUT_OF_SYNC,
    (_S.OUT_OF_SYNC, _E.LEFT_IN_SYNC_SET): _S.OUT_OF_SYNC,
    (_S.OUT_OF_SYNC, _E.READMITTED): _S.CONSISTENT,
    (_S.OUT_OF_SYNC, _E.EMPTIED): _S.OUT_OF_SYNC,
    (_S.RESYNC_ABANDONED, _E.RESYNC_BEGUN): _S.RESYNC_ABANDONED,
    (_S.RESYNC_ABANDONED, _E.RESYNC_ENDED): _S.OUT_OF_SYNC,
    (_S.RESYNC_ABANDONED, _E.LEFT_IN_SYNC_SET): _S.RESYNC_ABANDONED,
    (_S.RESYNC_ABANDONED, _E.READMITTED): _S.RESYNCING,
    (_S.RESYNC_ABANDONED, _E.EMPTIED): _S.OUT_OF_SYNC,
    (_S.DIVERGED, _E.EMPTIED): _S.CONSISTENT,
}
"""By state and event, the next state. Any other event in a state is a fault of this program."""

COMPLETE: Final = (_S.CONSISTENT, _S.OUT_OF_SYNC, _S.DIVERGED)
"""The states in which the sections are exactly what the updates up to the replica's seq made of them."""

IGNORES_UPDATES: Final = (_S.OUT_OF_SYNC, _S.RESYNC_ABANDONED)
"""The states in which a replica takes no updates."""
