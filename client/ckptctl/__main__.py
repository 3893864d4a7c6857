"""The `ckptctl` command: one line and exit code 1 for what went wrong, 2 for a wrong command line."""

import os
import sys

from ckpt_client import CheckpointError, SaAisError
from ckpt_protocol.codes import code_name
from ckptctl.commands import app


def main() -> None:
    """Run one command."""
    try:
        app(prog_name="ckptctl")
    except CheckpointError as error:
        _fail(f"{error.text} ({code_name(error.code)})")
    except SaAisError as error:
        _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _fail(str(error))


def _fail(text: str) -> None:
    print(f"ckptctl: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
