"""The commands, one function each."""

import math
import sys
from typing import Annotated

import typer
from rich.console import Console

from ckpt_client import Connection
from ckptctl import leader_view, operator_verbs, render, revocation
from ckptctl.options import keeps_options, print_json, takes_access
from ckptctl.prompt_table import PromptTable
from ckptctl.queries import describe_checkpoints, describe_cluster
from ckptctl.settings import Access
from ckptctl.text_format import parse_bytes, parse_duration, show_bytes, typed_bytes
from ckptctl.version import print_version

app = typer.Typer(
    help="Show a ckptd cluster and its checkpoints, and change them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(operator_verbs.cluster, name="cluster")
app.add_typer(operator_verbs.node, name="node")

Name = Annotated[str, typer.Argument(help="The checkpoint's name; 0x... for bytes in hexadecimal.")]
Key = Annotated[str, typer.Argument(help="The section's key; 0x... for bytes in hexadecimal.")]

Command = Annotated[
    list[str] | None, typer.Argument(help="The command and its arguments, after --.", show_default=False)
]
Ttl = Annotated[str, typer.Option("--ttl", help="How long the leadership lasts if no node can be reached.")]
KillAfter = Annotated[
    str,
    typer.Option(
        "--kill-after",
        help="The time between SIGTERM and SIGKILL, at most half of the ttl; default: a fifth of it.",
        show_default=False,
    ),
]
LeaderName = Annotated[
    str | None,
    typer.Option("--name", help="What others see; default: the name of the command.", show_default=False),
]
Shared = Annotated[
    bool,
    typer.Option("--shared", help="Others, and the command itself, may write to the checkpoint meanwhile."),
]

AllowLoss = Annotated[
    bool,
    typer.Option(
        "--allow-loss-on-failover", help="Permit a ttl so short that a fail-over may end the leadership."
    ),
]


def _console() -> Console:
    # A pipe has no width, so nothing is folded or cut for its reader.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)


def _bytes(text: str) -> bytes:
    """A name or a key as it was typed. Raises: typer.BadParameter."""
    try:
        return parse_bytes(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: hexadecimal digits have to follow 0x") from None


def _name(text: str) -> tuple[str, str]:
    """A checkpoint's name as it was typed, and as it is shown. Raises: typer.BadParameter."""
    name = _bytes(text)
    try:
        return name.decode(), show_bytes(name)
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{show_bytes(name)}: a checkpoint's name has to be UTF-8") from None


def _show_version(asked: bool) -> None:
    if asked:
        print_version()
        raise typer.Exit


@app.callback()
@keeps_options
def ckptctl(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Look at a ckptd cluster and its checkpoints, and change them."""


@app.command()
@takes_access()
def status(
    access: Access,
    counters: Annotated[
        bool, typer.Option("--counters", help="Show the node's counters and limits, too.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help=(
                "Exit with 0 if all is well; with 1 if the node serves, but has alarms or misses a "
                "configured node; with 2 if it does not serve or does not answer."
            ),
        ),
    ] = False,
) -> None:
    """Show the cluster as one node sees it, even if that node does not serve."""
    cluster = describe_cluster(access)
    if access.as_json:
        print_json(render.cluster_json(cluster))
    else:
        render.print_cluster(_console(), cluster, counters)
    health, wrong = render.health_of(cluster)
    if check and health:
        print(f"ckptctl: {wrong}", file=sys.stderr)
        raise typer.Exit(health)


@app.command()
@takes_access()
def ls(access: Access) -> None:
    """List the checkpoints, as a node that serves knows them."""
    found, doubt = describe_checkpoints(access)
    checkpoints = sorted(found, key=lambda each: (each.name, each.creation_id))
    if doubt:
        print(f"ckptctl: this list may be empty or out of date: {doubt}", file=sys.stderr)
    if access.as_json:
        print_json(render.checkpoints_json(checkpoints))
    else:
        render.print_checkpoints(_console(), checkpoints)


@app.command("show")
@takes_access()
def show_checkpoint(access: Access, name: Name) -> None:
    """Show a checkpoint: attributes, replicas, sections."""
    checkpoint, shown = _name(name)
    with PromptTable(checkpoint, read_only=True, timeout=access.timeout, **access.client_arguments) as table:
        table_status, sections = table.status(), list(table.sections())
    if access.as_json:
        print_json(render.checkpoint_json(shown, table_status, sections))
    else:
        render.print_checkpoint(_console(), shown, table_status, sections)


@app.command()
@takes_access()
def get(access: Access, name: Name, key: Key) -> None:
    """Print a section's value, byte by byte and unchanged."""
    checkpoint, shown = _name(name)
    section_id = _bytes(key)
    with PromptTable(checkpoint, read_only=True, timeout=access.timeout, **access.client_arguments) as table:
        value = table[section_id]
    if access.as_json:
        print_json(render.value_json(shown, section_id, value))
    else:
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.write(b"\n" if sys.stdout.isatty() and not value.endswith(b"\n") else b"")
        sys.stdout.flush()


@app.command()
@takes_access()
def put(
    access: Access,
    name: Name,
    key: Key,
    value: Annotated[str, typer.Argument(help="The value; - reads it from standard input.")],
) -> None:
    """Set a section's value; a missing section is created, a missing checkpoint is not."""
    checkpoint, shown = _name(name)
    section_id = _bytes(key)
    content = sys.stdin.buffer.read() if value == "-" else typed_bytes(value)
    with PromptTable(checkpoint, timeout=access.timeout, **access.client_arguments) as table:
        table.Write(section_id, content)
    if access.as_json:
        print_json({"name": shown, "key": show_bytes(section_id), "size_bytes": len(content)})


@app.command()
@takes_access()
def delete(access: Access, name: Name, key: Key) -> None:
    """Delete a section; one that is missing is an error."""
    checkpoint, shown = _name(name)
    section_id = _bytes(key)
    with PromptTable(checkpoint, timeout=access.timeout, **access.client_arguments) as table:
        del table[section_id]
    if access.as_json:
        print_json({"name": shown, "key": show_bytes(section_id), "deleted": True})


@app.command()
@takes_access()
def resize(
    access: Access,
    name: Name,
    max_sections: Annotated[
        int | None, typer.Option(help="The most sections.", show_default=False, metavar="N")
    ] = None,
    max_section_size: Annotated[
        int | None, typer.Option(help="The largest section.", show_default=False, metavar="BYTES")
    ] = None,
    max_section_id_size: Annotated[
        int | None, typer.Option(help="The longest key.", show_default=False, metavar="BYTES")
    ] = None,
) -> None:
    """Change the limits of a checkpoint; what is in it stays, and has to fit.

    A limit that is not given stays as it is (`ckptctl show NAME` shows it). Programs that open the
    checkpoint with its former limits still can.
    """
    checkpoint, shown = _name(name)
    limits = (max_sections, max_section_size, max_section_id_size)
    if limits == (None, None, None):
        raise typer.BadParameter("give --max-sections, --max-section-size or --max-section-id-size")
    with PromptTable(checkpoint, timeout=access.timeout, **access.client_arguments) as table:
        table.resize(*limits)
        attributes = table.attributes
    if access.as_json:
        print_json(render.limits_json(shown, attributes))
    else:
        print(render.limits_text(shown, attributes))


@app.command()
@takes_access()
def unlink(access: Access, name: Name) -> None:
    """Free a checkpoint's name; its data is deleted once no client has it open."""
    checkpoint, shown = _name(name)
    connection = Connection(**access.client_arguments, waits=False)
    try:
        connection.unlink(checkpoint, access.timeout)
    finally:
        connection.close()
    if access.as_json:
        print_json({"name": shown, "unlinked": True})


def _seconds(text: str, option: str) -> float:
    """A duration as it was typed, in seconds. Raises: typer.BadParameter."""
    try:
        return parse_duration(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: a duration is 5s, 500ms, 2min or 1h") from None


@app.command()
@takes_access(math.inf)
def lead(
    access: Access,
    name: Name,
    command: Command = None,
    ttl: Ttl = "5s",
    kill_after: KillAfter = "",
    leader_name: LeaderName = None,
    shared: Shared = False,
    allow_loss: AllowLoss = False,
) -> None:
    """Wait until this program leads a checkpoint, and run a command while it does.

    The command has the fencing token in CKPTD_TOKEN, and as a number in
    CKPTD_TOKEN_INT. SIGTERM, SIGINT and SIGHUP go on to it. When the
    leadership is lost, or its ttl ends soon since no node can be reached,
    it gets SIGTERM, and SIGKILL before the end of the ttl. (After an
    operator's --revoke, the next program leads at once.) If ckptctl is
    killed, so is the command.

    The exit code is that of the command; 128 + n if signal n ended it; 126
    if it cannot be run, and 127 if it is not found; 1 for an error of the
    service, or if the --timeout is over first; 2 for a wrong command line.
    """
    from ckptctl import lead_command  # Its imports take time that the other commands do not need.

    checkpoint, _ = _name(name)
    if not command:
        raise typer.BadParameter("no command is given: ckptctl lead NAME -- COMMAND ARGUMENTS...")
    ttl_s = _seconds(ttl, "--ttl")
    kill_after_s = (
        _seconds(kill_after, "--kill-after") if kill_after else ttl_s / lead_command.KILL_AFTER_SHARE
    )
    if not 0 <= kill_after_s <= ttl_s / 2:
        raise typer.BadParameter(f"--kill-after {kill_after}: it is at most half of the ttl, {ttl}")
    ended = lead_command.why_not_runnable(command) or lead_command.run_while_leading(
        access,
        checkpoint,
        command,
        ttl=ttl_s,
        kill_after=kill_after_s,
        name=leader_name,
        exclusive=not shared,
        allow_loss=allow_loss,
    )
    if ended.text:
        print(f"ckptctl: {ended.text}", file=sys.stderr)
    raise typer.Exit(ended.exit_code)


@app.command()
@takes_access()
def leader(
    access: Access,
    name: Name,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="End this leadership; the next program that waits leads at once.")
    ] = False,
    yes: operator_verbs.Yes = False,
) -> None:
    """Show which program leads a checkpoint, which ones wait to, and the last ten that led.

    The exit code is 0, also if no program leads; 1 for an error, for
    --revoke if no program leads or another one does by now, and if you say
    no; 2 for a wrong command line, or if --revoke finds no terminal to ask.
    """
    checkpoint, shown = _name(name)
    with PromptTable(checkpoint, read_only=True, timeout=access.timeout, **access.client_arguments) as table:
        history = table.leadership_history()
    if revoke:
        revocation.revoke(access, checkpoint, shown, history, yes)
    elif access.as_json:
        print_json(leader_view.history_json(shown, history))
    else:
        leader_view.print_history(_console(), shown, history)
