"""The `ckptctl` command: one line and exit code 1 for what went wrong, 2 for a wrong command line.

`status --check` has exit codes of its own: see `show.Health`.
"""

import io
import os
import sys

from ckptctl.version import print_version


def main() -> None:
    """Run one command. The version is said without importing any."""
    if sys.argv[1:] == ["--version"]:
        print_version()
        return
    from ckpt_client import CheckpointError, SaAisError
    from ckpt_protocol.codes import code_name
    from ckptctl.commands import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that this terminal has no characters for is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
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
