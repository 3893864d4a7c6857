"""The states of a replica, of an activation and of a leave: exactly the transitions in the tables are possible."""

import itertools

import pytest
from tests.core.cluster import Cluster, three_nodes

from ckptd.core.content import replica_state
from ckptd.core.content.replica_state import COMPLETE, IGNORES_UPDATES, ReplicaEvent, ReplicaState
from ckptd.core.operations import graceful_leave
from ckptd.core.operations.graceful_leave import LeaveState
from ckptd.core.replication import activation
from ckptd.core.replication.activation import ActivationState
from ckptd.core.replication.replica import Replica


def written() -> tuple[Cluster, Replica]:
    """A checkpoint, and the replica of its active node."""
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    entry = cluster.node("a").directory.find(b"x")
    assert entry is not None and entry.active is not None
    return cluster, cluster.replica(entry.active)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(ReplicaState, ReplicaEvent)))
def test_a_replica_goes_where_the_table_says_and_nowhere_else(
    state: ReplicaState, event: ReplicaEvent
) -> None:
    _, replica = written()
    replica.state = state
    following = replica_state.TRANSITIONS.get((state, event))
    if following is None:
        with pytest.raises(KeyError):
            replica.on_event(event)
        assert replica.state is state
        return
    replica.on_event(event)
    assert replica.state is following
    assert (replica.complete, replica.ignores_updates) == (
        following in COMPLETE,
        following in IGNORES_UPDATES,
    )


@pytest.mark.parametrize(("state", "following"), list(itertools.product(ActivationState, ActivationState)))
def test_an_activation_goes_where_the_table_says_and_nowhere_else(
    state: ActivationState, following: ActivationState
) -> None:
    _, replica = written()
    active = replica.active
    assert active is not None and active.ready and active.state is ActivationState.SERVING
    active.state = state
    if following not in activation.TRANSITIONS[state]:
        with pytest.raises(AssertionError):
            active._enter(following)
        return
    active._enter(following)
    assert active.state is following and active.ready == (following is ActivationState.SERVING)


@pytest.mark.parametrize(("state", "following"), list(itertools.product(LeaveState, LeaveState)))
def test_a_leave_goes_where_the_table_says_and_nowhere_else(state: LeaveState, following: LeaveState) -> None:
    leave = written()[0].node("a").graceful_leave
    assert leave.state is LeaveState.NOT_LEAVING
    leave.state = state
    if graceful_leave.TRANSITIONS.get(state) is not following:
        with pytest.raises((AssertionError, KeyError)):
            leave._enter(following)
        return
    leave._enter(following)
    assert leave.state is following


def test_every_state_is_reached() -> None:
    """From the first one, by the tables alone."""
    replicas = {ReplicaState.CONSISTENT}
    activations = {ActivationState.REPORTING}
    for _ in range(10):
        replicas |= {after for (state, _), after in replica_state.TRANSITIONS.items() if state in replicas}
        activations |= {after for state in activations for after in activation.TRANSITIONS[state]}
    assert replicas == set(ReplicaState) and activations == set(ActivationState)
