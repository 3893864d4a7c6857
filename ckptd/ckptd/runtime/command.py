"""The `ckptd` command: settings in, exit code out."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from ckptd.core.making import make_core
from ckptd.runtime.config import Config
from ckptd.runtime.config_sources import load_config, read_key
from ckptd.runtime.daemon import Daemon
from ckptd.runtime.errors import EXIT_FAILURE, EXIT_LAST_COPY, BegunAgain, ConfigRefused, NodeFailed, Refusal
from ckptd.runtime.logs import logger, set_up_logging
from ckptd.runtime.memory import settle_garbage_collector

SWITCH_INTERVAL_S: Final = 0.0005
"""The thread that writes records asks for the interpreter a few times a record: with the default of
5 ms each, a busy loop made a promise, and so a fail-over, wait for tens of milliseconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a daemon until it is told to stop.

    Returns the exit code: 0 stopped, 1 not started, 2 wrong settings, 3 stopped and took the last copy of
    something with it, 70 our own failure.
    """
    try:
        config = load_config(sys.argv[1:] if arguments is None else arguments)
        set_up_logging(config.log_level)
        key = read_key(config)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        with asyncio.Runner(loop_factory=_loop_factory(config)) as runner:
            handed_over = _run_on(runner, config, key)
    except Refusal as refusal:
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
    """Run the daemon, and begin again where the other nodes ask for a later start of it."""
    later_than = 0
    while True:
        try:
            return runner.run(_run(Daemon(config, key, make_core, later_than)))
        except BegunAgain as again:
            later_than = again.incarnation


async def _run(daemon: Daemon) -> bool:
    """Whether the node has handed over all that another one was to have."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    settling = asyncio.create_task(_settle_when_started(daemon))
    try:
        await daemon.run()
    finally:
        settling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await settling
    return daemon.handed_over


async def _settle_when_started(daemon: Daemon) -> None:
    await daemon.started.wait()
    settle_garbage_collector()


def _loop_factory(config: Config) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is wanted and installed; None is asyncio's own loop."""
    if config.uvloop == "off":
        return None
    try:
        import uvloop
    except ImportError:
        if config.uvloop == "on":
            raise ConfigRefused("uvloop is on, but not installed") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
