"""The options that all commands share. They may stand before and after the command's name."""

import codecs
import functools
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from ckpt_client.errors import SaAisError
from ckptctl.render import Health
from ckptctl.settings import SettingsError, SharedOptions, resolve
from ckptctl.text_format import show_bytes

TIMEOUT_SECONDS: Final = 10.0

_CONTROLS: Final = re.compile("[\x7f-\x9f]")
"""What JSON leaves as it is, and a terminal may take for a command."""

_ADDRESS: Final = typer.Option(
    "--address",
    "-a",
    help=(
        "unix:///path, tcp://host:port or udp://host:port, several separated by commas; "
        "default: the addresses of --config, else CKPTD_ADDRESS, else the local daemon's "
        "socket."
    ),
    show_default=False,
)
_JSON: Final = typer.Option("--json", help="Print JSON.")
_TIMEOUT: Final = typer.Option(
    "--timeout",
    help=(
        "Seconds to wait for an answer (default: 10; 60 for commands that end daemons or wait), and for lead "
        "until it leads (default: no limit)."
    ),
    min=0.001,
    show_default=False,
)
_KEY_FILE: Final = typer.Option(
    "--key-file",
    help="A file with the cluster's key; default: the key of --config, else CKPTD_KEY.",
    show_default=False,
)
_CONFIG: Final = typer.Option(
    "--config",
    help="The daemon's config file, for the address, the cluster and the key.",
    show_default=False,
)
_SHARED: Final = {
    "address": Annotated[str | None, _ADDRESS],
    "as_json": Annotated[bool, _JSON],
    "timeout": Annotated[float | None, _TIMEOUT],
    "key_file": Annotated[Path | None, _KEY_FILE],
    "config": Annotated[Path | None, _CONFIG],
}


def takes_access(timeout: float = TIMEOUT_SECONDS) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command whose first argument, an `Access`, comes from the shared options.

    `timeout` is the command's own default, for when no option gives one.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(context: typer.Context, options: SharedOptions, **own: Any) -> None:
            try:
                function(resolve(options, timeout), **own)
            except SettingsError as error:
                _end(str(error), 2)
            except (SaAisError, OSError) as error:
                if not own.get("check"):
                    raise
                # A monitor that reads the exit code must not take "no answer" for "degraded".
                _end(str(error), Health.NOT_SERVING)

        return _with_shared_options(function, run, own_from=1)

    return decorate


def _end(text: str, exit_code: int) -> NoReturn:
    print(f"ckptctl: {' '.join(text.split())}", file=sys.stderr)
    raise typer.Exit(exit_code)


def keeps_options(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function the callback of a group that keeps the shared options for the commands in it."""

    def run(context: typer.Context, options: SharedOptions, **own: Any) -> None:
        context.obj = options
        function(**own)

    return _with_shared_options(function, run, own_from=0)


def _with_shared_options(
    function: Callable[..., None], run: Callable[..., None], own_from: int
) -> Callable[..., None]:
    """Return `run` with the name of `function`, its parameters from `own_from` on, and the shared options."""

    @functools.wraps(function)
    def command(context: typer.Context, **values: Any) -> None:
        options = SharedOptions(**{name: values.pop(name) for name in _SHARED})
        run(context, options.completed_by(context.obj or SharedOptions()), **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    own = list(inspect.signature(function).parameters.values())[own_from:]
    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(
            inspect.Parameter(name, keyword, annotation=kind, default=False if name == "as_json" else None)
            for name, kind in _SHARED.items()
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def print_json(content: object) -> None:
    """Print JSON, for `--json`. A newer daemon may send types that JSON does not have: print them as text."""
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(content, indent=2, ensure_ascii=not is_utf8, default=_as_text)
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _as_text(content: object) -> str:
    return show_bytes(content) if isinstance(content, bytes) else str(content)
