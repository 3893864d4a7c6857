"""Settings: every key by flag, variable and file, in this order; each mistake is one line and exit code 2."""

import dataclasses
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ckpt_client.session.address import parse_address
from ckpt_protocol.limits import FRAME_BYTES_MAX
from ckptd.core.settings import INTERNAL_SETTINGS, Settings
from ckptd.runtime.config.addresses import HostPort, default_socket_path, default_state_directory
from ckptd.runtime.config.model import Config
from ckptd.runtime.config.sources import (
    check_etcd_certificate_key,
    flag_name,
    flag_parser,
    load_config,
    read_etcd_password,
    read_key,
    variable_name,
)
from ckptd.runtime.errors import ConfigError

VALUES: dict[str, tuple[Any, Any]] = {
    "client_frames_bytes_max": (str(FRAME_BYTES_MAX), FRAME_BYTES_MAX),
    "cluster": ("blue", "blue"),
    "key": ("a secret of 21 bytes.", "a secret of 21 bytes."),
    "key_file": ("/k", Path("/k")),
    "node_id": ("n1", "n1"),
    "listen": ("[::1]:7000", HostPort("::1", 7000)),
    "advertise": ("host.example:7000", HostPort("host.example", 7000)),
    "peers": ("b=h:1, c=[::1]:2", {"b": HostPort("h", 1), "c": HostPort("::1", 2)}),
    "socket": ("none", "none"),
    "socket_mode": ("0660", 0o660),
    "state_dir": ("/s", Path("/s")),
    "arbiter": ("single", "single"),
    "on_silent_peer": ("block", "block"),
    "fence_hook": ("/usr/sbin/fence --now", "/usr/sbin/fence --now"),
    "witness": ("on", True),
    "witnesses": ("w", ("w",)),
    "etcd_endpoints": ("https://e1:2379, http://[::1]:2379/", ("https://e1:2379", "http://[::1]:2379")),
    "etcd_register": ("/view", "/view"),
    "etcd_user": ("ckptd", "ckptd"),
    "etcd_password_file": ("/p", Path("/p")),
    "etcd_ca_file": ("/ca", Path("/ca")),
    "etcd_cert_file": ("/c", Path("/c")),
    "etcd_cert_key_file": ("/ck", Path("/ck")),
    "record_events": ("/r", Path("/r")),
    "replicas": ("2", 2),
    "trust_rst": ("off", False),
    "heartbeat_ms": ("12.5", 12.5),
    "lease_ms": ("300", 300),
    "grace_ms": ("5000", 5000),
    "log_level": ("debug", "debug"),
    "uvloop": ("off", "off"),
    "end_with_stdin": ("on", True),
}
ETCD = ["--arbiter", "etcd", "--etcd-endpoints", "http://e1:2379"]
THREE = ["--peers", "b=h:1,w=h:2"]
COMPANY: dict[str, list[str]] = {
    "on_silent_peer": ["--arbiter", "pair", "--peers", "b=h:1"],
    "witness": THREE,
    "witnesses": THREE,
    "etcd_endpoints": ["--arbiter", "etcd"],
}
"""What a key needs beside it."""

KEYS = sorted(Config.model_fields)


def value_of(key: str) -> tuple[Any, Any]:
    """How a key is written, and what that means."""
    if key in VALUES:
        return VALUES[key]
    return ("123456", 123456)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_set_by_flag_variable_and_file(key: str, tmp_path: Path) -> None:
    text, meaning = value_of(key)
    file = tmp_path / "ckptd.toml"
    file.touch(0o600)
    file.write_text(f'{key} = "{text}"\n')
    company = COMPANY.get(key, [])
    assert getattr(load_config([flag_name(key), text, *company], {}), key) == meaning
    assert getattr(load_config(company, {variable_name(key): text}), key) == meaning
    assert getattr(load_config(["--config", str(file), *company], {}), key) == meaning
    assert getattr(load_config(company, {"CKPTD_DAEMON_CONFIG": str(file)}), key) == meaning
    assert getattr(load_config([], {}), key) != meaning


def test_a_flag_beats_a_variable_and_that_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ckptd.toml"
    file.write_text('cluster = "file"\nreplicas = 4\nlog_level = "error"\n')
    variables = {"CKPTD_DAEMON_CLUSTER": "variable", "CKPTD_DAEMON_REPLICAS": "5"}
    config = load_config(["--config", str(file), "--cluster", "flag"], variables)
    assert (config.cluster, config.replicas, config.log_level) == ("flag", 5, "error")


def test_toml_types_and_tables_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "ckptd.toml"
    file.write_text(
        'lease_ms = 500\ntrust_rst = false\nuvloop = false\nsocket_mode = 0o640\n[peers]\nb = "h:1"\n'
    )
    config = load_config(["--config", str(file)], {})
    assert (config.lease_ms, config.trust_rst, config.uvloop, config.socket_mode) == (
        500,
        False,
        "off",
        0o640,
    )
    assert config.peers == {"b": HostPort("h", 1)}


def test_the_example_of_the_readme_needs_no_file() -> None:
    arguments = [
        "--node-id",
        "a",
        "--listen",
        "127.0.0.1:7301",
        "--peers",
        "b=127.0.0.1:7302,c=127.0.0.1:7303",
    ]
    settings = load_config(arguments, {}).settings()
    assert (settings.node_id, settings.peers, settings.arbiter_name) == ("a", ("b", "c"), "majority")


def test_defaults_of_the_core_and_of_the_configuration_agree() -> None:
    settings = Config(node_id="a").settings()
    # The core itself has no limit; a daemon always gives it one.
    assert settings.memory_bytes_max > 0
    assert dataclasses.replace(settings, memory_bytes_max=0) == Settings("a")
    assert Config(node_id="a", memory_bytes_max=5).settings().memory_bytes_max == 5
    assert {field.name for field in dataclasses.fields(Settings)} - set(INTERNAL_SETTINGS) <= {
        key.removesuffix("_ms") + "_ns" if key.endswith("_ms") else key for key in KEYS
    }


def test_one_file_serves_every_node() -> None:
    config = Config(node_id="b", peers="a=h1:7301,b=h2:7301,c=h3:7301", listen="0.0.0.0:7301")
    assert list(config.other_nodes) == ["a", "c"]
    assert str(config.advertised(7301)) == "h2:7301"


@pytest.mark.parametrize(
    ("node_id", "witness", "peers", "witnesses", "data_nodes"),
    [
        ("a", False, ("b",), ("w",), ("a", "b")),
        ("b", False, ("a",), ("w",), ("a", "b")),
        ("w", True, ("a", "b"), (), ("a", "b")),
    ],
)
def test_one_file_serves_a_witness_too(
    node_id: str,
    witness: bool,
    peers: tuple[str, ...],
    witnesses: tuple[str, ...],
    data_nodes: tuple[str, ...],
) -> None:
    config = Config(node_id=node_id, peers="a=h1:1,b=h2:1,w=h3:1", witnesses="w")
    settings = config.settings()
    assert (settings.witness, settings.peers, settings.witnesses) == (witness, peers, witnesses)
    assert (settings.arbiter_name, settings.voters) == ("majority", ("a", "b", "w"))
    assert config.data_nodes == data_nodes


def test_a_witness_may_say_so_itself() -> None:
    config = Config(node_id="w", peers="a=h1:1,b=h2:1", witness=True)
    assert config.settings().witness
    assert config.data_nodes == ("a", "b")


def test_the_register_has_a_name_for_each_cluster() -> None:
    assert Config(node_id="a", cluster="blue").etcd_register_name == "/ckptd/blue/view"
    assert Config(node_id="a", etcd_register="/view").etcd_register_name == "/view"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lease-ms", "800"], "heartbeat_ms < lease_ms < grace_ms"),
        (["--heartbeat-ms", "600"], "heartbeat_ms < lease_ms < grace_ms"),
        (["--lease-ms", "0"], "lease_ms (in --lease-ms)"),
        (["--lease-ms", "nan"], "lease_ms (in --lease-ms)"),
        (["--lease-ms", "soon"], "lease_ms (in --lease-ms)"),
        (["--replicas", "0"], "replicas (in --replicas)"),
        (["--listen", "7301"], "'7301' is not host:port"),
        (["--listen", "h:99999"], "'h:99999' is not host:port"),
        (["--listen", "::1:7301"], "an IPv6 address goes in brackets"),
        (["--peers", "b"], "'b' is not node=host:port"),
        (["--peers", "b=h:1,b=h:2"], "node 'b' is listed twice"),
        (["--peers", "b=h:0"], "peer 'b' needs a port"),
        (["--peers", "b=h:1,c=h:1"], "gives node 'c' the address h:1, but that is the address of node 'b'"),
        (["--listen", "h:1", "--peers", "b=h:1"], "that is the address of this node itself (listen)"),
        (["--advertise", "h:1", "--peers", "b=h:1"], "that is the address of this node itself (advertise)"),
        (["--peers", "b c=h:1"], "'b c' is not a node id"),
        (["--node-id", ""], "1 to 64 bytes"),
        (["--node-id", "x" * 65], "1 to 64 bytes"),
        (["--cluster", "a/b"], "no slash"),
        (["--arbiter", "quorum"], "arbiter (in --arbiter)"),
        (["--arbiter", "single", "--peers", "b=h:1"], "without peers"),
        (["--arbiter", "pair"], "needs two data nodes"),
        (["--arbiter", "pair", "--peers", "b=h:1,c=h:2"], "needs two data nodes"),
        (
            ["--arbiter", "pair", "--peers", "b=h:1,w=h:2", "--witnesses", "w"],
            "votes only under arbiter majority",
        ),
        (["--witness", "--peers", "b=h:1"], "the arbiter is pair with 2 voters"),
        (["--witness"], "are witnesses"),
        (["--witnesses", "a,b", "--peers", "b=h:1"], "are witnesses"),
        (["--witnesses", "x", "--peers", "b=h:1,c=h:2"], "'x', which is not one of the peers"),
        (["--witnesses", "w w", "--peers", "b=h:1,c=h:2"], "'w w' is not a node id"),
        (["--arbiter", "single", "--witnesses", "a"], "are witnesses"),
        ([*ETCD, "--peers", "b=h:1,w=h:2", "--witnesses", "w"], "the arbiter is etcd"),
        (["--arbiter", "etcd"], "needs etcd_endpoints"),
        (["--etcd-endpoints", "http://e1:2379"], "is for arbiter etcd"),
        (["--arbiter", "etcd", "--etcd-endpoints", "e1:2379"], "a URL such as"),
        (["--arbiter", "etcd", "--etcd-endpoints", "http://u:p@e1:2379"], "without a user"),
        (["--arbiter", "etcd", "--etcd-endpoints", "http://e1:port"], "etcd_endpoints (in"),
        ([*ETCD, "--etcd-user", "ckptd"], "belong together"),
        ([*ETCD, "--etcd-password-file", "/p"], "belong together"),
        ([*ETCD, "--etcd-ca-file", "/ca"], "for https endpoints, but http://e1:2379 is not"),
        ([*ETCD, "--etcd-cert-key-file", "/k"], "etcd_cert_file is not"),
        (["--peers", "b=h:1", "--on-silent-peer", "fence"], "needs a fence_hook"),
        (["--peers", "b=h:1,c=h:2", "--on-silent-peer", "block"], "is for arbiter pair, but the arbiter is"),
        (["--fence-hook", " "], "no program is named"),
        (["--fence-hook", "'"], "fence_hook (in --fence-hook)"),
        (["--arbiter", "majority"], "needs peers"),
        (["--key", "0123456789abcdef", "--key-file", "b"], "both set"),
        (["--socket-mode", "rw"], "octal"),
        (["--socket-mode", "7777"], "socket_mode (in --socket-mode)"),
        (["--trust-rst", "perhaps"], "trust_rst (in --trust-rst)"),
        (["--log-level", "loud"], "log_level (in --log-level)"),
        (["--lease", "1"], "--lease"),
        (["--config", "/nonexistent/ckptd.toml"], "No such file"),
    ],
)
def test_a_mistake_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(["--node-id", "a", *arguments] if "--node-id" not in arguments else arguments, {})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_unknown_keys_are_refused_in_every_source(tmp_path: Path) -> None:
    file = tmp_path / "ckptd.toml"
    file.write_text("lease_mss = 1\n")
    with pytest.raises(ConfigError, match=r"unknown setting lease_mss .*did you mean lease_ms\?"):
        load_config(["--config", str(file)], {})
    with pytest.raises(ConfigError, match="CKPTD_DAEMON_LEESE_MS"):
        load_config([], {"CKPTD_DAEMON_LEESE_MS": "1"})
    file.write_text("lease_ms = = 1\n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(["--config", str(file)], {})


KEY = "0123456789abcdef"


def test_a_key_never_shows_in_a_refusal_or_a_repr() -> None:
    assert KEY not in repr(Config(node_id="a", key=KEY))
    for arguments in (["--key", KEY, "--key-file", "f"], ["--key", KEY[1:], "--listen", "0.0.0.0:1"]):
        with pytest.raises(ConfigError) as refused:
            load_config(arguments, {})
        assert KEY[1:] not in str(refused.value)


def secret_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_the_key_comes_from_its_file(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "key", KEY.encode() + b"\n")
    config = Config(node_id="a", key_file=file)
    assert read_key(config) == KEY.encode()
    file.write_bytes(b"\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_key(config)
    file.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        read_key(config)
    assert read_key(Config(node_id="a", key="clé" * 4)) == ("clé" * 4).encode()


def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "key", KEY[1:].encode() + b"\n")
    with pytest.raises(ConfigError, match=r"key_file .* 16 bytes or more"):
        read_key(Config(node_id="a", key_file=file))
    with pytest.raises(ConfigError, match=r"^key: .* 16 bytes or more"):
        load_config(["--listen", "0.0.0.0:1"], {"CKPTD_DAEMON_KEY": KEY[1:]})
    assert load_config(["--listen", "0.0.0.0:1"], {"CKPTD_DAEMON_KEY": ""}).key == ""
    assert load_config([], {"CKPTD_DAEMON_KEY": KEY[1:]}).key == KEY[1:]  # Nobody else reaches loopback.


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_secret_that_every_user_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    """A warning in the log was all there was, and the daemon went on with a key that everybody had."""
    file = secret_file(tmp_path / "secret", KEY.encode())
    etcd: dict[str, Any] = {"arbiter": "etcd", "etcd_endpoints": "https://e:1", "node_id": "a"}
    reads: list[Callable[[], object]] = [
        lambda: read_key(Config(node_id="a", key_file=file)),
        lambda: read_etcd_password(Config(**etcd, etcd_user="u", etcd_password_file=file)),
        lambda: check_etcd_certificate_key(Config(**etcd, etcd_cert_file=file)),
        lambda: check_etcd_certificate_key(Config(**etcd, etcd_cert_file="/c", etcd_cert_key_file=file)),
    ]
    for read in reads:
        file.chmod(0o640)  # Its group is its owner's choice.
        read()
        file.chmod(mode)
        with pytest.raises(ConfigError, match=f"secret: every user .* chmod o-rwx {file}"):
            read()


def test_a_config_file_with_a_key_is_a_secret_too(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "ckptd.toml", f'key = "{KEY}"'.encode())
    assert load_config(["--config", str(file)], {}).key == KEY
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="holds the cluster's key, and every user may read"):
        load_config(["--config", str(file)], {})
    file.write_text('cluster = "c"')
    assert load_config(["--config", str(file)], {}).cluster == "c"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_key_is_refused(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "key", KEY.encode())
    os.chown(file, 54_321, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_key(Config(node_id="a", key_file=file))


def test_the_password_for_etcd_comes_from_its_file(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "password", b"hush\n")
    config = Config(
        node_id="a", arbiter="etcd", etcd_endpoints="http://e:1", etcd_user="u", etcd_password_file=file
    )
    assert read_etcd_password(config) == "hush"
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_etcd_password(config)
    assert read_etcd_password(Config(node_id="a")) == ""


def test_a_relative_socket_is_reported_as_clients_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--socket s.sock` was announced as unix://s.sock, which every client refuses."""
    monkeypatch.chdir(tmp_path)
    path = Config(node_id="a", socket="s.sock").socket_path
    assert path == tmp_path / "s.sock"
    assert parse_address(f"unix://{path}").host == str(tmp_path / "s.sock")


@pytest.mark.parametrize("path", ["/tmp/a,b.sock", "/tmp/a.sock ", " /tmp/a.sock", "a\0b"])
def test_a_socket_that_clients_cannot_name_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="clients cannot name"):
        load_config(["--socket", path], {})


@pytest.mark.parametrize("address", ["0.0.0.0:7301", "[::]:7301"])
def test_an_address_that_is_every_address_is_not_advertised(address: str) -> None:
    with pytest.raises(
        ConfigError, match=r"advertise \(in --advertise\): clients on other hosts cannot reach"
    ):
        load_config(["--advertise", address], {})


def test_an_empty_path_is_none() -> None:
    assert Config(node_id="a", record_events="").record_events is None


def test_help_names_every_key() -> None:
    text = flag_parser().format_help()
    assert all(flag_name(key) in text for key in KEYS)


def test_a_user_without_a_home_gets_an_error_that_names_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run under any user id: `ckptd` ended in a traceback there."""

    def unknown(user_id: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {user_id}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("os.geteuid", lambda: 54_321)
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="does not have a home directory: set state_dir"):
        _ = Config(node_id="a").state_path
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert Config(node_id="a", cluster="c").state_path == Path("/s/ckptd/c-a")
    assert Config(node_id="a", state_dir="/d").state_path == Path("/d")


def test_a_host_name_that_is_no_node_id_is_refused_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "")
    with pytest.raises(ConfigError, match=r"node_id \(in the defaults\): a node id has"):
        load_config([], {})


def test_default_places_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ckptd.runtime.config.addresses.RUN_DIRECTORY", tmp_path / "missing")
    monkeypatch.setattr("os.getuid", lambda: 1000)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/state")
    assert default_socket_path() == Path("/run/user/1000/ckptd/ckptd.sock")
    assert default_state_directory("c", "a") == Path("/home/u/state/ckptd/c-a")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_socket_path() == Path("/tmp/ckptd-1000/ckptd.sock")
    monkeypatch.setattr("ckptd.runtime.config.addresses.RUN_DIRECTORY", tmp_path)
    assert default_socket_path() == tmp_path / "ckptd.sock"
