"""The commands, one function each."""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console

from ckpt_client import Connection, Table
from ckptctl import operating, show
from ckptctl.asking import describe, describe_checkpoints
from ckptctl.options import TIMEOUT_SECONDS, Address, Json, Timeout, print_json
from ckptctl.text import parse_bytes, show_bytes

app = typer.Typer(
    help="Look at a ckptd cluster and its checkpoints, and change them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(operating.cluster, name="cluster")
app.add_typer(operating.node, name="node")

Name = Annotated[str, typer.Argument(help="The checkpoint's name.")]
Key = Annotated[str, typer.Argument(help="The section's key; 0x… for bytes in hexadecimal.")]


def _console() -> Console:
    # A pipe has no width: nothing is folded or cut for whoever reads it.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)


def _key(text: str) -> bytes:
    try:
        return parse_bytes(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: hexadecimal digits follow 0x") from None


def _show_version(asked: bool) -> None:
    if asked:
        try:
            print(f"ckptctl {version('ckptd')}")
        except PackageNotFoundError:
            print("ckptctl, not installed as a package")
        raise typer.Exit


@app.callback()
def ckptctl(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Look at a ckptd cluster and its checkpoints, and change them.

    A cluster's key is taken from CKPTD_KEY.
    """


@app.command()
def status(
    address: Address = None,
    as_json: Json = False,
    timeout: Timeout = TIMEOUT_SECONDS,
    counters: Annotated[bool, typer.Option("--counters", help="Show the node's counters too.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where the node does not serve or has alarms.")
    ] = False,
) -> None:
    """The cluster as the node that is asked sees it, also when it serves nothing."""
    cluster: Any = describe(address, "cluster", timeout)
    if as_json:
        print_json(show.cluster_json(cluster))
    else:
        show.print_cluster(_console(), cluster, counters)
    if check and not show.is_well(cluster):
        raise typer.Exit(1)


@app.command()
def ls(address: Address = None, as_json: Json = False, timeout: Timeout = TIMEOUT_SECONDS) -> None:
    """The checkpoints, as a node knows them that serves."""
    found, doubt = describe_checkpoints(address, timeout)
    rows = sorted(found, key=lambda row: (row[0], row[1]))
    if doubt:
        print(f"ckptctl: this list may be empty or old: {doubt}", file=sys.stderr)
    if as_json:
        print_json(show.checkpoints_json(rows))
    else:
        show.print_checkpoints(_console(), rows)


@app.command("show")
def show_checkpoint(
    name: Name, address: Address = None, as_json: Json = False, timeout: Timeout = TIMEOUT_SECONDS
) -> None:
    """A checkpoint: attributes, replicas, sections."""
    with Table(name, read_only=True, address=address, timeout=timeout) as table:
        table_status, sections = table.status(), list(table.sections())
    if as_json:
        print_json(show.checkpoint_json(name, table_status, sections))
    else:
        show.print_checkpoint(_console(), name, table_status, sections)


@app.command()
def get(
    name: Name, key: Key, address: Address = None, as_json: Json = False, timeout: Timeout = TIMEOUT_SECONDS
) -> None:
    """A section's value, byte by byte as it is."""
    section_id = _key(key)
    with Table(name, read_only=True, address=address, timeout=timeout) as table:
        value = table[section_id]
    if as_json:
        print_json(show.value_json(name, section_id, value))
    else:
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.write(b"\n" if sys.stdout.isatty() and not value.endswith(b"\n") else b"")
        sys.stdout.flush()


@app.command()
def put(
    name: Name,
    key: Key,
    value: Annotated[str, typer.Argument(help="The value; - reads it from standard input.")],
    address: Address = None,
    as_json: Json = False,
    timeout: Timeout = TIMEOUT_SECONDS,
) -> None:
    """Set a section's value; a missing section is created, a missing checkpoint is not."""
    section_id = _key(key)
    content = sys.stdin.buffer.read() if value == "-" else value.encode()
    with Table(name, address=address, timeout=timeout) as table:
        table.Write(section_id, content)
    if as_json:
        print_json({"name": name, "key": show_bytes(section_id), "size_bytes": len(content)})


@app.command()
def delete(
    name: Name, key: Key, address: Address = None, as_json: Json = False, timeout: Timeout = TIMEOUT_SECONDS
) -> None:
    """Delete a section; one that is missing is an error."""
    section_id = _key(key)
    with Table(name, address=address, timeout=timeout) as table:
        del table[section_id]
    if as_json:
        print_json({"name": name, "key": show_bytes(section_id), "deleted": True})


@app.command()
def unlink(
    name: Name, address: Address = None, as_json: Json = False, timeout: Timeout = TIMEOUT_SECONDS
) -> None:
    """Free a checkpoint's name; its data goes when nobody has it open any more."""
    connection = Connection(address)
    try:
        connection.unlink(name, timeout)
    finally:
        connection.close()
    if as_json:
        print_json({"name": name, "unlinked": True})
