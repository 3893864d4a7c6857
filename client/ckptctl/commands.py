"""The commands, one function each."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from ckpt_client import Connection, Table
from ckptctl import operator_verbs, render
from ckptctl.options import keeps_options, print_json, takes_access
from ckptctl.queries import describe, describe_checkpoints
from ckptctl.settings import Access
from ckptctl.text_format import parse_bytes, show_bytes, typed_bytes
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
    cluster: Any = describe(access, "cluster")
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
    rows = sorted(found, key=lambda row: (row[0], row[1]))
    if doubt:
        print(f"ckptctl: this list may be empty or out of date: {doubt}", file=sys.stderr)
    if access.as_json:
        print_json(render.checkpoints_json(rows))
    else:
        render.print_checkpoints(_console(), rows)


@app.command("show")
@takes_access()
def show_checkpoint(access: Access, name: Name) -> None:
    """Show a checkpoint: attributes, replicas, sections."""
    checkpoint, shown = _name(name)
    with Table(checkpoint, read_only=True, timeout=access.timeout, **access.client_arguments) as table:
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
    with Table(checkpoint, read_only=True, timeout=access.timeout, **access.client_arguments) as table:
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
    with Table(checkpoint, timeout=access.timeout, **access.client_arguments) as table:
        table.Write(section_id, content)
    if access.as_json:
        print_json({"name": shown, "key": show_bytes(section_id), "size_bytes": len(content)})


@app.command()
@takes_access()
def delete(access: Access, name: Name, key: Key) -> None:
    """Delete a section; one that is missing is an error."""
    checkpoint, shown = _name(name)
    section_id = _bytes(key)
    with Table(checkpoint, timeout=access.timeout, **access.client_arguments) as table:
        del table[section_id]
    if access.as_json:
        print_json({"name": shown, "key": show_bytes(section_id), "deleted": True})


@app.command()
@takes_access()
def unlink(access: Access, name: Name) -> None:
    """Free a checkpoint's name; its data is deleted once no client has it open."""
    checkpoint, shown = _name(name)
    connection = Connection(**access.client_arguments)
    try:
        connection.unlink(checkpoint, access.timeout)
    finally:
        connection.close()
    if access.as_json:
        print_json({"name": shown, "unlinked": True})
