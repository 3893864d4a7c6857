"""Programs with a service: how they end, what they leave, what they import."""

import os
import subprocess
import sys

import pytest
from tests.client.fake_service import FakeNode
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    NAME,
    Heard,
    Initialize,
    SafService,
    initialize,
    nothing_left,
    opened,
    service,
    tracked,
    unanswered,
    until,
)

from ckpt_client import saf
from ckpt_client.saf import CheckpointService
from ckpt_protocol.messages import Kind

__all__ = ["initialize", "nothing_left", "service", "start"]

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_left")]

HEAD = """
import os, sys, threading, time
from ckpt_client.saf import *
def tell(*told): pass
callbacks = CheckpointCallbacks(tell, tell, tell)
given = CheckpointCreationAttributes(2, 100_000, 10**9, 100, 1000, 20)
def begin():
    return CheckpointService.initialize(callbacks=callbacks, address=sys.argv[1])
def opened(service):
    return service.checkpoint_open("safCkpt=x", 7, given)
"""


def run(program: str, node: FakeNode, expected: int = 0, *flags: str) -> str:
    """A program that begins as they all do. Its standard output; nothing else is said."""
    # Since Python 3.12 every fork beside a thread warns; here that is what is tried.
    quiet = ("-W", "ignore:This process:DeprecationWarning")
    command = [sys.executable, *quiet, *flags, "-c", HEAD + program, node.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.stderr == ""
    assert ended.returncode == expected
    return ended.stdout


ENDINGS = {
    "forgotten": "service = begin(); checkpoint = opened(service)",
    "in a function": "def main():\n    service = begin(); checkpoint = opened(service)\nmain()",
    "finalized": "service = begin(); opened(service); service.finalize()",
    "several": "services = [begin() for _ in range(5)]; opened_all = [opened(one) for one in services]",
    "sys.exit": "service = begin(); checkpoint = opened(service); sys.exit(0)",
    "asynchronous calls": """
service = begin(); checkpoint = opened(service)
for number in range(50):
    service.checkpoint_open_async(number, "safCkpt=x", 7, given)
    checkpoint.synchronize_async(number)
""",
    "tracking": "service = begin(); checkpoint = opened(service); checkpoint.track()",
    "tracking with a call pending": """
service = begin(); tracked = opened(service); tracked.track()
opened(begin()).section_create("k")
while not service.pending: time.sleep(0.001)
""",
    "a thread in a call": """
service = begin(); checkpoint = opened(service)
threading.Thread(target=service.dispatch, args=(3,), daemon=True).start()
""",
    "a cycle": """
service = begin(); checkpoint = opened(service)
class Program: pass
program = Program(); program.me, program.service = program, service
del program, service, checkpoint
""",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_that_ends_in_order_leaves_nothing_open(
    how: str, start: Start, service: SafService
) -> None:
    """Over TCP nobody sees a process die: what it says is all that is known."""
    node = start("a", "tcp")
    node.misbehave = tracked()
    run(ENDINGS[how], node)
    until(lambda: not service.sessions)
    assert service.checkpoints[NAME.encode()].opens == 0


def test_a_program_that_ends_by_an_error_leaves_nothing_open(start: Start, service: SafService) -> None:
    node = start("a", "tcp")
    run("service = begin(); checkpoint = opened(service); sys.stderr = None; 1 / 0", node, 1)
    until(lambda: not service.sessions)


def test_an_interrupted_program_leaves_nothing_open(start: Start, service: SafService) -> None:
    node = start("a", "tcp")
    program = """
import signal
signal.signal(signal.SIGALRM, lambda *_: sys.exit(3))
service = begin(); checkpoint = opened(service)
threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGALRM)).start()
service.dispatch(DispatchFlags.BLOCKING)
"""
    run(program, node, 3)
    until(lambda: not service.sessions)


def test_a_child_says_nothing_for_its_parent(start: Start, service: SafService) -> None:
    node = start("a", "tcp")
    program = """
service = begin(); checkpoint = opened(service)
def forgotten():
    own = begin(); opened(own).section_create("child")
if os.fork() == 0:
    del checkpoint, service
    forgotten()
    sys.exit(0)
os.wait()
print(checkpoint.read([("child", None, 0)]))
"""
    assert run(program, node) == "[b'']\n"
    until(lambda: not service.sessions)


def test_a_node_that_does_not_answer_delays_no_process_for_long(start: Start) -> None:
    node = start("a", "tcp")
    node.misbehave = unanswered(Kind.DETACH)
    run("services = [begin() for _ in range(3)]; all_opened = [opened(one) for one in services]", node)


def test_a_process_with_a_service_may_start_others(start: Start, initialize: Initialize) -> None:
    checkpoint = opened(initialize(start()))
    assert subprocess.run([sys.executable, "-c", ""], check=True, capture_output=True).stderr == b""
    checkpoint.section_create("k")


# -- services that nobody can reach any more


def test_a_service_without_a_reachable_node_ends(start: Start, service: SafService) -> None:
    """Its session lived, and everything stayed open, for as long as the process did."""
    node = start("a", "tcp")
    library = CheckpointService.initialize(callbacks=Heard().callbacks, address=node.url)
    checkpoint = opened(library)
    descriptor = library.selection_object()
    del library
    checkpoint.section_create("k")
    assert len(service.sessions) == 1, "the checkpoint is enough to reach it"
    del checkpoint
    until(lambda: not service.sessions)
    with pytest.raises(OSError):
        os.fstat(descriptor)


# -- imports

HEAVY = [
    *("asyncio", "concurrent.futures"),
    *("ckpt_client.saf", "ckpt_client.checkpoint.tracking", "ckpt_protocol.descriptions"),
]


def test_the_client_alone_imports_no_asyncio() -> None:
    program = f"import sys, ckpt_client; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_the_library_starts_no_thread_before_it_is_used() -> None:
    program = "import threading, ckpt_client.saf; print(threading.active_count())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"


def test_everything_that_a_saf_program_needs_is_in_one_module() -> None:
    assert all(hasattr(saf, name) for name in saf.__all__)
    assert (saf.SA_TIME_END, saf.SA_CKPT_WR_ALL_REPLICAS) == (2**63 - 1, 1)
    assert len(set(saf.__all__)) == len(saf.__all__)
