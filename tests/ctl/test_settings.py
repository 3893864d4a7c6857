"""How `ckptctl` finds the cluster and its key: options before and after the command, daemon settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.client.fake_service import FakeNode
from tests.client.fixtures import Start, service, start

from ckpt_client.errors import SaAisError
from ckpt_protocol.handshake import Identity
from ckptctl.settings import CLUSTER, LISTEN, Access, SettingsError, SharedOptions, resolve
from ckptd.runtime.config.model import Config

__all__ = ["service", "start"]

KEY = "0123456789abcdef"


def access(given: SharedOptions, **variables: str) -> Access:
    return resolve(given, 10.0, variables)


def urls(found: Access) -> list[str]:
    return [str(address) for address in found.addresses]


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_the_defaults_are_the_daemons() -> None:
    fields = Config.model_fields
    assert (fields["cluster"].default, str(fields["listen"].default)) == (CLUSTER, LISTEN)


def test_a_config_file_gives_address_cluster_and_key(tmp_path: Path) -> None:
    key = written(tmp_path / "key", f"{KEY}\n")
    config = written(
        tmp_path / "ckptd.toml",
        f'cluster = "three"\nlisten = "0.0.0.0:7301"\nkey_file = "{key}"\nsocket = "/run/x.sock"\n',
    )
    found = access(
        SharedOptions(config=config), CKPTD_ADDRESS="tcp://elsewhere:1", CKPTD_KEY="another one that is long"
    )
    assert urls(found) == ["unix:///run/x.sock", "tcp://127.0.0.1:7301"]
    assert found.identity == Identity("three", KEY.encode())
    assert found.one_node


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ["tcp://127.0.0.1:7301"]),
        ('socket = "none"\nlisten = "[::]:9"', ["tcp://[::1]:9"]),
        ('listen = "host1:7301"', ["tcp://host1:7301"]),
        ('socket = "s.sock"\nlisten = "h:0"', [f"unix://{Path.cwd()}/s.sock"]),
    ],
)
def test_where_a_daemon_listens_by_its_file(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert urls(access(SharedOptions(config=written(tmp_path / "c", content)))) == expected


def test_in_the_daemons_environment_its_settings_are_found() -> None:
    """`docker compose exec a ckptctl status` was refused: the daemon had the key, and ckptctl did not."""
    variables = {
        "CKPTD_DAEMON_SOCKET": "/run/ckptd/ckptd.sock",
        "CKPTD_DAEMON_LISTEN": "0.0.0.0:7301",
        "CKPTD_DAEMON_CLUSTER": "compose",
        "CKPTD_DAEMON_KEY": KEY,
    }
    found = access(SharedOptions(), **variables)
    assert urls(found) == ["unix:///run/ckptd/ckptd.sock", "tcp://127.0.0.1:7301"]
    assert found.identity == Identity("compose", KEY.encode())
    assert access(SharedOptions(), **variables, CKPTD_KEY="", CKPTD_ADDRESS=" ") == found
    # Another cluster's address is not asked as a member of ours.
    found = access(SharedOptions(address="tcp://h:1"), **variables)
    assert (urls(found), found.cluster) == (["tcp://h:1"], "")


def test_a_variable_of_the_daemon_beats_its_file(tmp_path: Path) -> None:
    config = written(tmp_path / "c", f'cluster = "file"\nkey = "{KEY}"')
    found = access(SharedOptions(), CKPTD_DAEMON_CONFIG=str(config), CKPTD_DAEMON_CLUSTER="variable")
    assert found.identity == Identity("variable", KEY.encode())


def test_a_flag_beats_a_clients_variable_and_that_the_daemons(tmp_path: Path) -> None:
    key = written(tmp_path / "key", "that of the flag\n")
    daemons = {"CKPTD_DAEMON_KEY": KEY, "CKPTD_DAEMON_LISTEN": "h:3"}
    clients = {"CKPTD_KEY": "that of the variable", "CKPTD_ADDRESS": "tcp://h:2"}
    config = written(tmp_path / "c", 'listen = "h:4"\nkey = "that of the file"')
    assert urls(access(SharedOptions(address="tcp://h:1", config=config), **clients)) == ["tcp://h:1"]
    assert access(SharedOptions(key_file=key, config=config), **clients).key == b"that of the flag"
    assert access(SharedOptions(config=config), **clients).key == b"that of the file"
    found = resolve(SharedOptions(), 10.0, daemons)
    assert (urls(found), found.key) == (["tcp://h:3"], KEY.encode())


@pytest.mark.parametrize("content", ["key = 5", "listen = = 1", 'listen = "nowhere"', 'socket = "a,b"'])
def test_a_file_that_is_no_daemons_is_one_line(tmp_path: Path, content: str) -> None:
    with pytest.raises((SettingsError, SaAisError)) as wrong:
        access(SharedOptions(config=written(tmp_path / "c", content)))
    assert len(str(wrong.value).splitlines()) == 1


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CKPTD_")}
    return subprocess.run(
        [sys.executable, "-m", "ckptctl", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment | variables,
    )


def locked(start: Start) -> FakeNode:
    return start("a", key=KEY.encode())


@pytest.mark.parametrize("where", ["before", "after", "between"])
@pytest.mark.parametrize("command", ["cluster bootstrap", pytest.param("status", marks=pytest.mark.extended)])
def test_shared_options_stand_before_or_after_the_commands_name(
    tmp_path: Path, start: Start, where: str, command: str
) -> None:
    node = locked(start)
    group, _, verb = command.rpartition(" ")
    options = ["--address", node.url, "--key-file", str(written(tmp_path / "key", KEY)), "--json"]
    more = ["--yes"] if group else []
    if where == "before":
        words = [*options, *command.split(), *more]
    elif where == "after":
        words = [*command.split(), *more, *options]
    else:
        words = [*options[:2], *filter(None, [group]), *(options[2:] if group else []), verb, *more]
        words += [] if group else options[2:]
    ended = run(*words, "--timeout", "5")
    assert "wrong cluster key" not in ended.stderr
    assert node.received, ended.stderr
    if not group:
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)


def test_a_later_option_beats_an_earlier_one(start: Start) -> None:
    node = start("a")
    assert run("--address", "tcp://127.0.0.1:9", "status", "--address", node.url).returncode == 0


def test_tables_are_opened_with_the_same_access(tmp_path: Path, start: Start) -> None:
    node = locked(start)
    path = node.url.removeprefix("unix://")
    config = written(tmp_path / "c", f'cluster = "test"\nkey = "{KEY}"\nsocket = "{path}"')
    ended = run("--config", str(config), "show", "nothing-here")
    assert "key" not in ended.stderr
    assert node.received
    refused = run("show", "nothing-here", "--address", node.url)
    assert refused.returncode == 1
    assert "key" in refused.stderr


def test_a_key_that_no_daemon_takes_is_refused(tmp_path: Path) -> None:
    """The node said only that it does not hold it."""
    ended = run("--key-file", str(written(tmp_path / "key", "0123456789abcde\n")), "status")
    assert ended.returncode == 2
    assert "has 15 bytes; a cluster's key has 16 or more" in ended.stderr


def test_a_key_that_no_daemon_takes_is_reported_with_its_source(tmp_path: Path) -> None:
    """With one in CKPTD_KEY, the file of --config was named, which has none."""
    config = written(tmp_path / "c", 'cluster = "test"')
    ended = run("--config", str(config), "status", CKPTD_KEY="short")
    assert "the key in CKPTD_KEY has 5 bytes" in ended.stderr
    with_key = written(tmp_path / "k", 'key = "short"')
    assert f"the key in {with_key} has 5 bytes" in run("--config", str(with_key), "status").stderr


def test_a_key_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ended = run("--key-file", str(tmp_path / "none"), "status")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
