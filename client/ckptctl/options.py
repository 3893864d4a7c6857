"""Options that many commands share."""

import json
from typing import Annotated, Final

import typer

from ckptctl.text import show_bytes

TIMEOUT_SECONDS: Final = 10.0

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        help="unix:///path, tcp://host:port or udp://host:port, several with commas; "
        "default: CKPTD_ADDRESS, else the local daemon's socket.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.", min=0.001)]


def print_json(content: object) -> None:
    """What `--json` asks for. A newer daemon may tell of things that JSON has no word for."""
    print(json.dumps(content, indent=2, ensure_ascii=False, default=_as_text))


def _as_text(content: object) -> str:
    return show_bytes(content) if isinstance(content, bytes) else str(content)
