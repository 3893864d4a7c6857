"""ASP's modules, and programs written for ASP, run as they are."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.client.fake_service import FakeService
from tests.client.fixtures import Start, service, start

from ckpt_client import Error, Table
from ckpt_client.asp.module_builder import make_modules
from ckptd.testing import LocalCluster

__all__ = ["service", "start"]

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join(str(ROOT / folder) for folder in ("protocol", "client"))


def run(url: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m ckpt_client.asp`: options, a program, its arguments."""
    environment = {**os.environ, "PYTHONPATH": PATH, "CKPTD_ADDRESS": url, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "ckpt_client.asp", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def modules() -> dict[str, Any]:
    """The modules."""
    return dict(make_modules())


def test_asp_has_codes_flags_times_and_types(modules: dict[str, Any]) -> None:
    asp = modules["asp"]
    assert modules["safplusCApi"] is asp
    assert (asp.SA_AIS_OK, asp.SA_AIS_ERR_DEPLOYMENT) == (1, 40)
    assert asp.SA_CKPT_CHECKPOINT_COLLOCATED == 8
    assert asp.SA_TIME_ONE_DAY == 86400 * 10**9
    assert asp.SA_DISPATCH_BLOCKING == 3
    assert asp.SA_MAX_NAME_LENGTH == 256
    assert asp.SA_CKPT_DEFAULT_SECTION_ID == b""
    version = asp.SaVersionT()
    version.releaseCode, version.majorVersion, version.minorVersion = "B", 1, 1
    assert version == asp.SaVersionT("B", 1, 1) == asp.SaVersionT(majorVersion=1, minorVersion=1)
    assert repr(version) == "SaVersionT(releaseCode='B', majorVersion=1, minorVersion=1)"
    with pytest.raises(TypeError):
        asp.SaVersionT(1, 2, 3, 4)
    with pytest.raises(TypeError):
        asp.SaVersionT(nothing=1)
    one, other = asp.SaCkptCheckpointDescriptorT(), asp.SaCkptCheckpointDescriptorT()
    one.checkpointCreationAttributes.maxSections = 5
    assert other.checkpointCreationAttributes.maxSections == 0
    for name in (
        "SaCkptSectionIdT",
        "SaCkptSectionDescriptorT",
        "SaCkptIOVectorElementT",
        "SaCkptCallbacksT",
    ):
        assert getattr(asp, name)() == getattr(asp, name)()


def test_asp_misc_names_codes(modules: dict[str, Any]) -> None:
    misc = modules["aspMisc"]
    assert misc.AspError[12] == "SA_AIS_ERR_NOT_EXIST"
    assert misc.getErrorString(5) == "SA_AIS_ERR_TIMEOUT"
    assert misc.getErrorString("as it is") == "as it is"
    assert misc.getErrorString(999) == "UNKNOWN_ERROR_CODE"


def test_misc_error_is_the_base_of_checkpoint_error(modules: dict[str, Any]) -> None:
    assert modules["misc"].Error is Error


def test_a_program_finds_asps_modules_its_folder_and_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 7\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, asp, safplusCApi, aspMisc, misc, aspCheckpoint, beside\n"
        "from asp import *\n"
        "assert issubclass(aspCheckpoint.CheckpointError, misc.Error)\n"
        "print(__name__, sys.argv[1:], SA_AIS_ERR_NOT_EXIST, aspMisc.getErrorString(12), beside.value)\n"
    )
    done = run("", program, "one", "two")
    assert done.stdout == "__main__ ['one', 'two'] 12 SA_AIS_ERR_NOT_EXIST 7\n", done.stderr


def test_an_error_has_the_idioms_of_python_2(tmp_path: Path) -> None:
    """`e[0]` is the code, and a table's error holds one of these in `aspErrorCode`."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asp, aspCheckpoint, aspMisc\n"
        "try:\n"
        "    asp.saCkptFinalize(77)\n"
        "except SystemError as e:\n"
        "    print(e[0], e.args == (9,), aspMisc.getErrorString(e[0]))\n"
        "try:\n"
        "    aspCheckpoint.Table('t', 0, 1, 1, retentionMs=-1)\n"
        "except aspCheckpoint.CheckpointError as e:\n"
        "    print(e[0], e.errCode, e.aspErrorCode[0], aspMisc.getErrorString(e.aspErrorCode[0]))\n"
    )
    done = run("", program)
    assert done.stdout == "9 True SA_AIS_ERR_BAD_HANDLE\n7 7 7 SA_AIS_ERR_INVALID_PARAM\n", done.stderr


def test_the_table_is_asps_only_when_it_is_asked_for(tmp_path: Path) -> None:
    """`install` says which `Table` the program's `aspCheckpoint` has, also when it is called again."""
    program = tmp_path / "program.py"
    program.write_text(
        "import aspCheckpoint, sys\n"
        "from ckpt_client import Table\n"
        "from ckpt_client.asp import install\n"
        "print('asp' in sys.modules, aspCheckpoint.Table is Table)\n"
        "for strict in (False, True, False):\n"
        "    install(strict=strict)\n"
        "    import asp\n"
        "    write = asp.saCkptCheckpointWrite.__name__\n"
        "    print(aspCheckpoint.Table.__name__, issubclass(aspCheckpoint.Table, Table), write)\n"
    )
    environment = {**os.environ, "PYTHONPATH": PATH}
    command = [sys.executable, str(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [
        "False False",
        "AspTable True saCkptCheckpointWrite",
        "StrictTable True strict_write",
        "AspTable True saCkptCheckpointWrite",
    ], done.stderr


def test_a_module_of_the_programs_own_stays(tmp_path: Path) -> None:
    (tmp_path / "misc.py").write_text("value = 7\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import misc\nfrom ckpt_client.asp import install\ninstall()\ninstall()\n"
        "import misc, asp\nprint(misc.value, asp.SA_AIS_OK)\n"
    )
    environment = {**os.environ, "PYTHONPATH": PATH}
    command = [sys.executable, str(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "7 1\n", done.stderr


@pytest.mark.parametrize(("options", "kind"), [([], "AspTable"), (["--strict"], "StrictTable")])
def test_strict_is_an_option_before_the_program(tmp_path: Path, options: list[str], kind: str) -> None:
    program = tmp_path / "program.py"
    program.write_text("import aspCheckpoint, sys\nprint(aspCheckpoint.Table.__name__, sys.argv[1:])\n")
    done = run("", *options, program, "--strict", "one")
    assert done.stdout == f"{kind} ['--strict', 'one']\n", done.stderr


def test_help_prints_the_usage() -> None:
    done = run("", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: python -m ckpt_client.asp [--strict] program.py" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["--strict"], ["--other", "program.py"], ["--strict", "none.py"]])
def test_a_missing_program_is_a_usage_error(tmp_path: Path, arguments: list[str]) -> None:
    assert run("", tmp_path / "none.py").returncode == 2
    done = run("", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_a_programs_exit_code_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys\nsys.exit(3)\n")
    assert run("", program).returncode == 3


# -- the examples


def test_the_counter_continues_where_it_was(start: Start) -> None:
    a, b = start("a"), start("b")
    program = ROOT / "examples" / "counter.py"
    first = run(f"{a.url},{b.url}", program, "3")
    assert (first.returncode, first.stdout.split()[-1]) == (0, "3"), first.stderr
    a.stop()
    second = run(f"{a.url},{b.url}", program, "2")
    assert (second.returncode, second.stdout.split()[-1]) == (0, "5"), second.stderr


def test_the_phone_book_keeps_its_entries(start: Start) -> None:
    url = start("a").url
    program = ROOT / "examples" / "phonebook.py"
    assert run(url, program, "add", "Ada", "1815").returncode == 0
    assert run(url, program, "add", "Grace", "1906").returncode == 0
    assert run(url, program, "find", "Ada").stdout == "Ada: 1815\n"
    assert run(url, program, "remove", "Ada").returncode == 0
    assert run(url, program, "list").stdout == "Grace: 1906\n"
    missing = run(url, program, "find", "Ada")
    assert (missing.returncode, missing.stdout) == (1, "Ada is not in the book\n")


def test_the_standby_takes_over_from_the_active(start: Start, service: FakeService) -> None:
    url = start("a").url
    program = ROOT / "examples" / "standby.py"
    active = run(url, program, "active", "3")
    assert active.returncode == 0, active.stderr
    assert "job 3 done" in active.stdout
    standby = run(url, program, "standby", "2")
    assert standby.returncode == 0, standby.stderr
    assert "takes over after job 3" in standby.stdout and "job 5 done" in standby.stdout


def test_the_examples_say_what_is_wrong_without_a_daemon() -> None:
    # (They wait 10 s for one that may still start, but not at a host that cannot exist.)
    done = run("tcp://no..such..host:1", ROOT / "examples" / "counter.py", "1")
    assert done.returncode == 1
    assert "SA_AIS_ERR_UNAVAILABLE" in done.stdout + done.stderr


def test_the_async_example() -> None:
    command = [sys.executable, str(ROOT / "examples" / "sessions_async.py")]
    with LocalCluster(1) as cluster:
        environment = {**os.environ, "PYTHONPATH": PATH, "CKPTD_ADDRESS": cluster.address()}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        with Table("sessions", address=cluster.address()) as table:
            assert len(table) == 100


def test_a_program_that_blocks_imports_no_event_loop() -> None:
    program = (
        "import sys, aspCheckpoint, ckpt_client; from ckpt_client.asp import install; install(); import asp; "
        "assert 'asyncio' not in sys.modules; ckpt_client.AsyncTable"
    )
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": PATH}, check=True, timeout=60
    )
