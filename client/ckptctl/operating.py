"""The operator's word: commands that act on one node, and may cost data.

Each says first what it can lose, and asks.
"""

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from ckpt_client.address import Address, choose_addresses, is_given
from ckpt_client.connecting import failure_of
from ckpt_client.errors import SaAisError, error_of
from ckpt_protocol import codes
from ckpt_protocol.framing import FrameError
from ckpt_protocol.messages import Kind, Verb
from ckptctl import options
from ckptctl.asking import Asked, ask, ask_one

POLL_SECONDS: Final = 0.05
"""How often a node that leaves is looked for."""

ASK_SECONDS: Final = 1.0
"""A node that is looked for and says nothing for so long is still there."""

DRAIN_SECONDS: Final = 60.0
"""A drain may have to copy what only this node holds."""

WHAT_IT_COSTS: Final = {
    Verb.BOOTSTRAP: "founds a new history with the nodes that are here; what nodes that are missing still "
    "hold goes to their quarantine when they come back",
    Verb.FORCE_ACTIVE: "this node goes on with the nodes it hears, without the arbiter; if the others still "
    "serve, both sides write, and what one side acknowledged goes to quarantine when they meet",
    Verb.ACCEPT_LOSS: "{} counts as dead: what only it acknowledged is lost (it goes to quarantine if the "
    "node comes back)",
    Verb.RETRY: "checkpoint {} is served again; what it was asked to do may stop this node and the next one, "
    "and each takes along what only it holds",
    Verb.DRAIN: "nothing is lost while another node is there, or comes back within leave_ms: what only this "
    "node holds is handed over first; collocated replicas of this node go",
    Verb.STOP: "ends every node of the cluster ({}): what the cluster holds is in memory alone, and is gone",
}

cluster = typer.Typer(
    no_args_is_help=True, help="Decide what the cluster may not decide by itself, or end it."
)
node = typer.Typer(no_args_is_help=True, help="Take one node out of service.")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
One = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        help="The one node that is to act: unix:///path, tcp://host:port or udp://host:port; "
        "default: CKPTD_ADDRESS, else the local daemon's socket.",
        show_default=False,
    ),
]


@dataclass(slots=True, frozen=True)
class Target:
    """The one node that is asked, the start of its daemon that was met, and what that said of itself.

    `voters`: every node of its cluster, with those that hold no data.
    """

    address: Address
    node_id: str
    incarnation: int
    state: str
    voters: tuple[str, ...] = ()


def one_address(address: str | None) -> Address:
    """The address of the node that is to act. Raises: typer.BadParameter for more than one."""
    addresses = choose_addresses(address)
    if is_given(address) and len(addresses) > 1:
        raise typer.BadParameter(
            f"exactly one node carries this out, and {len(addresses)} addresses are given "
            "(in --address or CKPTD_ADDRESS): choose one with --address"
        )
    return addresses[0]


def meet(address: Address, timeout_s: float) -> Target:
    """Ask a node who it is. Raises: SaAisError."""
    met = ask([address], Kind.DESCRIBE, ["cluster"], timeout_s)
    described = met.payload if isinstance(met.payload, dict) else {}
    waits = f"not serving: {described.get('waiting_for') or 'no view yet'}"
    state = "serving" if described.get("serving") else waits
    voters = tuple(str(node_id) for node_id in described.get("voters") or ())
    return Target(address, met.node_id, met.incarnation, state, voters)


def confirm(target: Target, verb: str, subject: str, yes: bool) -> None:
    """Say what the command can cost, and ask whether to go on; exit code 2 where nobody can be asked."""
    print(f"{verb} at node {target.node_id} ({target.address}), {target.state}:", file=sys.stderr)
    print(f"  {WHAT_IT_COSTS[verb].format(subject)}.", file=sys.stderr)
    if yes:
        return
    if not sys.stdin.isatty():
        print("ckptctl: nobody is here to be asked; --yes goes on without asking", file=sys.stderr)
        raise typer.Exit(2)
    if not typer.confirm("Go on?", err=True):
        print("Nothing was done.", file=sys.stderr)
        raise typer.Exit(1)


def operate(target: Target, fields: list[Any], timeout_s: float) -> Asked:
    """Say the operator's word to a node.

    Raises: SaAisError TIMEOUT where its answer did not come, so that it may have been done; else with the
    code of the refusal.
    """
    try:
        return ask_one(target.address, Kind.OPERATE, fields, timeout_s)
    except (OSError, FrameError) as error:
        why = failure_of(error)[0] if isinstance(error, OSError) else str(error)
        raise error_of(
            codes.TIMEOUT, f"{target.address}: no answer ({why}): whether it was done is not known"
        ) from None


def has_gone(target: Target) -> bool:
    """Whether the daemon that was met has ended: nothing listens, or another start of it does."""
    try:
        found = ask_one(target.address, Kind.DESCRIBE, ["cluster"], ASK_SECONDS)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except (OSError, FrameError, SaAisError):
        return False
    return found.incarnation != target.incarnation


def _act(verb: str, subject: str, address: str | None, yes: bool, as_json: bool, timeout: float) -> None:
    target = meet(one_address(address), timeout)
    confirm(target, verb, subject, yes)
    answer = operate(target, [verb, subject] if subject else [verb], timeout)
    _report(target, verb, answer.payload, as_json)


def _report(target: Target, verb: str, text: Any, as_json: bool, **more: object) -> None:
    said = text if isinstance(text, str) else ""
    if as_json:
        options.print_json({"node": target.node_id, "verb": verb, "done": said, **more})
    else:
        print(said or "done")


@cluster.command()
def bootstrap(
    address: One = None,
    yes: Yes = False,
    as_json: options.Json = False,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
) -> None:
    """Make a cold start with the nodes that are here, where others that were members are missing."""
    _act(Verb.BOOTSTRAP, "", address, yes, as_json, timeout)


@cluster.command("force-active")
def force_active(
    address: One = None,
    yes: Yes = False,
    as_json: options.Json = False,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
) -> None:
    """Let a node that waits go on with the nodes that it hears, whatever the arbiter says."""
    _act(Verb.FORCE_ACTIVE, "", address, yes, as_json, timeout)


@cluster.command("accept-loss")
def accept_loss(
    lost: Annotated[str, typer.Argument(metavar="NODE", help="The node that is dead.")],
    address: One = None,
    yes: Yes = False,
    as_json: options.Json = False,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
) -> None:
    """Tell a node that another one is dead, and that what only that one had is lost."""
    if not lost:
        raise typer.BadParameter("a node's name is not empty")
    _act(Verb.ACCEPT_LOSS, lost, address, yes, as_json, timeout)


@cluster.command()
def retry(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The checkpoint that stopped nodes.")],
    address: One = None,
    yes: Yes = False,
    as_json: options.Json = False,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
) -> None:
    """Serve a checkpoint again that is closed since it stopped nodes (by a version without that bug)."""
    if not name:
        raise typer.BadParameter("a checkpoint's name is not empty")
    _act(Verb.RETRY, name, address, yes, as_json, timeout)


@node.command()
def drain(
    address: One = None,
    yes: Yes = False,
    as_json: options.Json = False,
    timeout: options.Timeout = DRAIN_SECONDS,
) -> None:
    """Hand over what a node holds, and end its daemon; waits until that has gone."""
    target = meet(one_address(address), timeout)
    confirm(target, Verb.DRAIN, "", yes)
    _end(target, Verb.DRAIN, as_json, timeout)


@cluster.command()
def stop(
    address: One = None,
    yes: Yes = False,
    as_json: options.Json = False,
    timeout: options.Timeout = DRAIN_SECONDS,
) -> None:
    """End every node of the cluster. Nobody is waited for, and all that the cluster holds is gone."""
    target = meet(one_address(address), timeout)
    confirm(target, Verb.STOP, ", ".join(target.voters) or "all that are configured", yes)
    _end(target, Verb.STOP, as_json, timeout)


def _end(target: Target, verb: str, as_json: bool, timeout: float) -> None:
    """Say a word that ends the node's daemon, and wait until that has gone."""
    begun_s = time.monotonic()
    answer = operate(target, [verb], timeout)
    while not has_gone(target):
        if time.monotonic() - begun_s > timeout:
            text = f"node {target.node_id} has answered, and still runs after {timeout:g} s"
            raise error_of(codes.TIMEOUT, text)
        time.sleep(POLL_SECONDS)
    seconds = round(time.monotonic() - begun_s, 3)
    _report(target, verb, answer.payload, as_json, gone=True, seconds=seconds)
    if not as_json:
        print(f"node {target.node_id} has gone, after {seconds:g} s")
