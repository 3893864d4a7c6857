"""The operator's commands: they act on one node, or wait for it.

A command that may cost data first says what it can lose, and asks.
"""

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.connecting import explain_failure
from ckpt_client.session.address import Address
from ckpt_protocol import codes
from ckpt_protocol.descriptions import parse_cluster_description
from ckpt_protocol.errors import FrameError
from ckpt_protocol.messages import Kind, Verb
from ckptctl.options import keeps_options, print_json, takes_access
from ckptctl.queries import NodeAnswer, cluster_in, request, request_from
from ckptctl.render import CAPACITY_ALARMS, Health, health_of
from ckptctl.settings import Access
from ckptctl.text_format import typed_bytes

POLL_SECONDS: Final = 0.05
"""How often a node is asked while a command waits for it or for its end."""

REQUEST_SECONDS: Final = 1.0
"""How long one such question waits for the answer. A leaving node that does not answer counts as running."""

DRAIN_SECONDS: Final = 60.0
"""The default time-out of commands that wait: a drain may have to copy what only this node holds."""

COSTS: Final = {
    Verb.BOOTSTRAP: (
        "bootstraps a new history with the nodes that can be reached; the data of missing "
        "nodes goes to their quarantine when they come back"
    ),
    Verb.FORCE_ACTIVE: (
        "this node continues with the nodes that it can reach, without the arbiter; if the "
        "other nodes still serve, both sides write, and what one side acknowledged goes to "
        "quarantine when they meet"
    ),
    Verb.ACCEPT_LOSS: (
        "{} counts as dead: what only it acknowledged is lost (it goes to quarantine if the node comes back)"
    ),
    Verb.RETRY: (
        "checkpoint {} is served again; the request that stopped a node before may stop "
        "this node and the next one, and data that only such a node has is lost"
    ),
    Verb.DRAIN: (
        "nothing is lost if another node is up, or comes back within leave_ms: this node "
        "first hands over the data that only it has; its collocated replicas are removed"
    ),
    Verb.STOP: (
        "ends every node of the cluster ({}): the data of the cluster is only in memory, and is lost"
    ),
}

COSTS_OF_LAST_DRAIN: Final = "this is the only node: its data is only in its memory, and is lost"

cluster = typer.Typer(no_args_is_help=True)
node = typer.Typer(no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@cluster.callback()
@keeps_options
def decide() -> None:
    """Make a decision that the cluster must not make on its own, or end the cluster."""


@node.callback()
@keeps_options
def maintain() -> None:
    """Wait for one node, or take it out of service."""


@dataclass(slots=True, frozen=True)
class Target:
    """The one node that has to act, and what its daemon answered when it was asked."""

    access: Access
    address: Address
    node_id: str
    incarnation: int
    """The incarnation that answered."""

    state: str
    """`serving`, or the reason why the node does not serve."""

    voters: tuple[str, ...] = ()
    """Every node of its cluster, including those that hold no data."""


def one_address(access: Access) -> Address:
    """Return the address of the node that has to act. Raises: typer.BadParameter for several nodes."""
    if access.named and not access.one_node and len(access.addresses) > 1:
        raise typer.BadParameter(
            f"this command goes to exactly one node, but {len(access.addresses)} addresses are "
            "given (in --address or CKPTD_ADDRESS): choose one with --address"
        )
    return access.addresses[0]


def identify_target(access: Access) -> Target:
    """Ask the one node that has to act who it is. Raises: SaAisError; typer.BadParameter."""
    address = one_address(access)
    answer = request(access, [address], Kind.DESCRIBE, ["cluster"])
    cluster = cluster_in(answer)
    state = "serving" if cluster.serving else f"not serving: {cluster.waiting_for or 'no view yet'}"
    return Target(access, address, answer.node_id, answer.incarnation, state, cluster.voters)


def confirm(target: Target, verb: str, subject: str, yes: bool) -> None:
    """Print what the command can cost, and ask whether to continue; exit code 2 if no terminal can answer."""
    print(f"{verb} at node {target.node_id} ({target.address}), {target.state}:", file=sys.stderr)
    costs = COSTS[verb]
    if verb == Verb.DRAIN and target.voters == (target.node_id,):
        costs = COSTS_OF_LAST_DRAIN
    print(f"  {costs.format(subject)}.", file=sys.stderr)
    ask_to_continue(yes)


def ask_to_continue(yes: bool) -> None:
    """Ask whether to continue unless `yes`; exit code 2 if no terminal can answer, 1 if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        print(
            "ckptctl: standard input is not a terminal, so nobody can confirm; --yes continues "
            "without asking",
            file=sys.stderr,
        )
        raise typer.Exit(2)
    if not typer.confirm("Continue?", err=True):
        print("Nothing was changed.", file=sys.stderr)
        raise typer.Exit(1)


def send_command(target: Target, fields: list[Any]) -> NodeAnswer:
    """Send an operator command to a node.

    Raises: SaAisError TIMEOUT if no answer came, so that it may have been done; else with the code of the
    refusal.
    """
    try:
        return request_from(target.access, target.address, Kind.OPERATE, fields, target.access.timeout)
    except (OSError, FrameError) as error:
        why = explain_failure(error)[0] if isinstance(error, OSError) else str(error)
        raise error_of(
            codes.TIMEOUT,
            f"{target.address}: no answer ({why}): it is unknown whether the command was carried out",
        ) from None


def has_gone(target: Target) -> bool:
    """Return True if the daemon has ended: nothing listens at its address, or another incarnation does."""
    try:
        found = request_from(target.access, target.address, Kind.DESCRIBE, ["cluster"], REQUEST_SECONDS)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except (OSError, FrameError, SaAisError):
        return False
    return found.incarnation != target.incarnation


def _act(access: Access, verb: str, subject: str, yes: bool) -> None:
    subject = typed_bytes(subject).decode(errors="replace")
    target = identify_target(access)
    confirm(target, verb, subject, yes)
    answer = send_command(target, [verb, subject] if subject else [verb])
    _report(target, verb, answer.payload)


def _report(target: Target, verb: str, text: Any, **more: object) -> None:
    done = text if isinstance(text, str) else ""
    if target.access.as_json:
        print_json({"node": target.node_id, "verb": verb, "done": done, **more})
    else:
        print(done or "done")


@cluster.command()
@takes_access()
def bootstrap(
    access: Access,
    yes: Yes = False,
) -> None:
    """Make a cold start with the nodes that can be reached, although former members are missing."""
    _act(access, Verb.BOOTSTRAP, "", yes)


@cluster.command("force-active")
@takes_access()
def force_active(
    access: Access,
    yes: Yes = False,
) -> None:
    """Let a waiting node continue with the nodes that it can reach, whatever the arbiter says."""
    _act(access, Verb.FORCE_ACTIVE, "", yes)


@cluster.command("accept-loss")
@takes_access()
def accept_loss(
    access: Access,
    lost: Annotated[str, typer.Argument(metavar="NODE", help="The node that is dead.")],
    yes: Yes = False,
) -> None:
    """Declare a node dead at another node: data that only the dead one had is lost."""
    if not lost:
        raise typer.BadParameter("a node's name is not empty")
    _act(access, Verb.ACCEPT_LOSS, lost, yes)


@cluster.command()
@takes_access()
def retry(
    access: Access,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The checkpoint that stopped nodes.")],
    yes: Yes = False,
) -> None:
    """Serve a closed checkpoint again: it stopped nodes, and their new version does not have that bug."""
    if not name:
        raise typer.BadParameter("a checkpoint's name is not empty")
    _act(access, Verb.RETRY, name, yes)


@node.command()
@takes_access(DRAIN_SECONDS)
def drain(
    access: Access,
    yes: Yes = False,
) -> None:
    """Hand over what a node holds and end its daemon; return when the daemon has ended."""
    target = identify_target(access)
    confirm(target, Verb.DRAIN, "", yes)
    _end(target, Verb.DRAIN)


@cluster.command()
@takes_access(DRAIN_SECONDS)
def stop(
    access: Access,
    yes: Yes = False,
) -> None:
    """End every node of the cluster without waiting for any. All data of the cluster is lost."""
    target = identify_target(access)
    confirm(target, Verb.STOP, ", ".join(target.voters) or "all configured nodes", yes)
    _end(target, Verb.STOP)


@dataclass(slots=True, frozen=True)
class Waited:
    """The node that a command waited for, and its health."""

    node_id: str
    health: Health
    text: str
    """The reason why the health is not good; "" if it is."""


@node.command()
@takes_access(DRAIN_SECONDS)
def wait(
    access: Access,
    serving: Annotated[
        bool,
        typer.Option(
            "--serving", help="Wait only until the node serves; other nodes or replicas may be missing."
        ),
    ] = False,
) -> None:
    """Wait until a node serves, no configured node is missing and all replicas are in sync.

    It also waits for a node that does not answer yet, but not for the end of the alarms limits and memory.
    The exit code is 1 if the time is over first.
    """
    print_wait(access, wait_for(access, Health.DEGRADED if serving else Health.GOOD))


def wait_for(access: Access, enough: Health) -> Waited:
    """Ask the one node repeatedly until its health is at least `enough`.

    Raises: SaAisError TIMEOUT when the time is over, else with the code of a refusal; typer.BadParameter.
    """
    until_s = time.monotonic() + access.timeout
    while True:
        address = one_address(access)
        left_s = until_s - time.monotonic()
        limit_s = min(REQUEST_SECONDS, max(left_s, POLL_SECONDS))
        try:
            answer = request_from(access, address, Kind.DESCRIBE, ["cluster"], limit_s)
            cluster = parse_cluster_description(answer.payload)
        except (OSError, FrameError) as error:
            wrong = (
                explain_failure(error)[0] if isinstance(error, OSError) else f"this is not a ckptd ({error})"
            )
        else:
            health, wrong = health_of(cluster, CAPACITY_ALARMS)
            if health <= enough:
                return Waited(answer.node_id, health, wrong)
        if left_s <= 0:
            raise error_of(codes.TIMEOUT, f"{address}, after {access.timeout:g} s: {wrong}")
        time.sleep(min(POLL_SECONDS, left_s))


def print_wait(access: Access, waited: Waited) -> None:
    """Print the health of the node that a command waited for."""
    if access.as_json:
        health = waited.health.name.lower()
        print_json({"node": waited.node_id, "health": health, "text": waited.text})
    else:
        print(f"node {waited.node_id}: {waited.text or 'serving, and nothing is missing'}")


def _end(target: Target, verb: str) -> None:
    """Send a command that ends the node's daemon, and wait until the daemon has gone."""
    begun_s, timeout = time.monotonic(), target.access.timeout
    answer = send_command(target, [verb])
    while not has_gone(target):
        if time.monotonic() - begun_s > timeout:
            text = f"node {target.node_id} has answered, but it still runs after {timeout:g} s"
            raise error_of(codes.TIMEOUT, text)
        time.sleep(POLL_SECONDS)
    seconds = round(time.monotonic() - begun_s, 3)
    _report(target, verb, answer.payload, gone=True, seconds=seconds)
    if not target.access.as_json:
        print(f"node {target.node_id} has ended after {seconds:g} s")
