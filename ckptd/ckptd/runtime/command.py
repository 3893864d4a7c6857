"""The `ckptd` command: settings in, exit code out."""

import asyncio
import contextlib
import faulthandler
import io
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Final

from ckptd.core.make_core import make_core
from ckptd.runtime.config.model import Config
from ckptd.runtime.config.sources import load_config, read_key
from ckptd.runtime.daemon import Daemon
from ckptd.runtime.errors import (
    EXIT_FAILURE,
    EXIT_LAST_COPY,
    BegunAgain,
    ConfigError,
    NodeFailed,
    StartupError,
)
from ckptd.runtime.host.memory import tune_garbage_collector
from ckptd.runtime.logs import logger, set_up_logging

SWITCH_INTERVAL_S: Final = 0.0005
"""The thread that writes records needs the interpreter a few times per record. With Python's default of 5 ms
for each switch, a busy event loop delayed a promise, and so a fail-over, by tens of milliseconds."""

STDIN: Final = 0
STDIN_BYTES: Final = 4096

IGNORED_SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that log rotation, `systemctl reload` or a closing terminal may send to a daemon. By default each
ends the process at once, without a hand-over; for the node that is a crash."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a daemon until it is asked to stop.

    Returns the exit code: 0 stopped, 1 not started, 2 wrong settings, 3 stopped while it held data that no
    other node is known to hold, 70 our own bug.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Do not fail on a node name that this locale cannot encode (stderr escapes it by default).
        sys.stdout.reconfigure(errors="backslashreplace")
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        # If the watchdog ends the process (SIGABRT), the log shows what it did. Fails if stderr is no file.
        faulthandler.enable()
    for number in IGNORED_SIGNALS:
        # Also ignore them before the event loop handles them and after it has closed.
        signal.signal(number, signal.SIG_IGN)
    try:
        config = load_config(sys.argv[1:] if arguments is None else arguments)
        set_up_logging(config.log_level)
        key = read_key(config)
        if config.end_with_stdin:
            _check_stdin()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        with asyncio.Runner(loop_factory=_loop_factory(config)) as runner:
            handed_over = _run_on(runner, config, key)
    except StartupError as refusal:
        print(f"ckptd: {refusal}", file=sys.stderr)
        return refusal.exit_code
    except NodeFailed:
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        logger.critical("ckptd failed", exc_info=error)
        return EXIT_FAILURE
    return 0 if handed_over else EXIT_LAST_COPY


def _run_on(runner: asyncio.Runner, config: Config, key: bytes) -> bool:
    """Run the daemon. Start it again whenever the other nodes know a higher incarnation of this node."""
    later_than = 0
    while True:
        try:
            return runner.run(_run(Daemon(config, key, make_core, later_than)))
        except BegunAgain as again:
            later_than = again.incarnation


async def _run(daemon: Daemon) -> bool:
    """Run the daemon until it ends. Return True if it took no data with it that only it held."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    for number in IGNORED_SIGNALS:
        loop.add_signal_handler(number, _ignore, number)
    if daemon.config.end_with_stdin:
        loop.add_reader(STDIN, _read_stdin, loop, daemon)
    tuning = asyncio.create_task(_tune_when_started(daemon))
    try:
        await daemon.run()
    finally:
        tuning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tuning
    return daemon.handed_over


def _ignore(number: signal.Signals) -> None:
    logger.info("%s is ignored: ckptd reads its settings only when it starts", number.name)


def _check_stdin() -> None:
    """Refuse a standard input that is no pipe or socket: an event loop cannot wait for the end of a file."""
    try:
        mode = os.fstat(STDIN).st_mode
    except OSError:
        mode = 0
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        raise ConfigError("end_with_stdin is set, but standard input is not a pipe or a socket")


def _read_stdin(loop: asyncio.AbstractEventLoop, daemon: Daemon) -> None:
    try:
        if os.read(STDIN, STDIN_BYTES):
            return
    except OSError as error:
        logger.warning("standard input cannot be read: %s", error.strerror)
    loop.remove_reader(STDIN)
    logger.info("standard input has ended, because the program that started this node has ended or closed it")
    daemon.stop()
    # The second call stops at once: the program's other nodes end too, so no node can take over.
    daemon.stop()


async def _tune_when_started(daemon: Daemon) -> None:
    await daemon.started.wait()
    tune_garbage_collector()


def _loop_factory(config: Config) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory if it is wanted and installed; None for asyncio's own loop."""
    if config.uvloop == "off":
        return None
    try:
        import uvloop
    except ImportError:
        if config.uvloop == "on":
            raise ConfigError("uvloop is on, but it is not installed") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
