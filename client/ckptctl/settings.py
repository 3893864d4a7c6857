"""How a command reaches the cluster: by its own options, else by the daemon's settings.

An operator has the daemon's config file, or its environment if `ckptctl` runs in the daemon's container. We
read only what a client needs: where the daemon listens, and the cluster's name and key.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ckpt_client.errors import SaAisError
from ckpt_client.session.address import ADDRESS_VARIABLE, KEY_VARIABLE, Address, choose_addresses, choose_key
from ckpt_protocol.handshake import Identity
from ckpt_protocol.limits import KEY_BYTES_MIN

ENVIRONMENT_PREFIX: Final = "CKPTD_DAEMON_"
CLUSTER: Final = "ckptd"
"""The default name of a daemon's cluster."""

LISTEN: Final = "127.0.0.1:7301"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class SettingsError(Exception):
    """A file with settings cannot be understood; the text says why."""


@dataclass(slots=True, frozen=True)
class SharedOptions:
    """The options on the command line; None or False for each that is not given."""

    address: str | None = None
    as_json: bool = False
    timeout: float | None = None
    key_file: Path | None = None
    config: Path | None = None

    def completed_by(self, earlier: "SharedOptions") -> "SharedOptions":
        """Return these options, completed by the `earlier` ones, which stood before the command's name."""
        return SharedOptions(
            earlier.address if self.address is None else self.address,
            self.as_json or earlier.as_json,
            earlier.timeout if self.timeout is None else self.timeout,
            self.key_file or earlier.key_file,
            self.config or earlier.config,
        )


@dataclass(slots=True, frozen=True)
class Access:
    """Which nodes to ask, with which identity and time-out, and how to print the answer."""

    addresses: tuple[Address, ...]
    cluster: str
    key: bytes
    timeout: float
    as_json: bool
    one_node: bool
    """True if all addresses are those of one node."""

    named: bool
    """True if options or settings name the addresses; else they are the usual places of the local socket."""

    @property
    def identity(self) -> Identity:
        """The identity for the handshake with a node."""
        return Identity(self.cluster, self.key)

    @property
    def client_arguments(self) -> dict[str, Any]:
        """The arguments that reach the same nodes with a `Table` or a `Connection`."""
        urls = [str(address) for address in self.addresses] if self.named else None
        return {"address": urls, "cluster": self.cluster, "key": self.key}


class DaemonSettings(NamedTuple):
    """The settings of a daemon that a client needs."""

    address: str
    """Where it listens; "" if the settings do not say."""
    cluster: str
    key: bytes | None


def resolve(options: SharedOptions, timeout: float, environment: Mapping[str, str] = os.environ) -> Access:
    """Return the access of a command; `timeout` is the command's own default.

    A flag takes precedence over `CKPTD_ADDRESS` and `CKPTD_KEY`, and these over the daemon's environment.
    Raises: SaAisError INVALID_PARAM for an address; SettingsError; OSError.
    """
    config = read_config(options.config) if options.config else DaemonSettings("", "", None)
    address, cluster, key, one_node = options.address, config.cluster, config.key, False
    if address is None and config.address:
        address, one_node = config.address, True
    key_from: object = KEY_VARIABLE if key is None else options.config
    if options.key_file is not None:
        key = options.key_file.read_bytes().strip()
    by_variable = address is None and bool(environment.get(ADDRESS_VARIABLE, "").strip())
    lacks_address = address is None and not by_variable
    lacks_key = key is None and not environment.get(KEY_VARIABLE)
    if lacks_address or lacks_key:
        shared = read_environment(environment)
        if lacks_key:
            key, key_from = shared.key, "the environment"
        if lacks_address and shared.address:
            address, cluster, one_node = shared.address, cluster or shared.cluster, True
    chosen_key = choose_key(key)
    if chosen_key:
        _check_key(chosen_key, options.key_file or key_from)
    return Access(
        choose_addresses(address),
        cluster,
        chosen_key,
        timeout if options.timeout is None else options.timeout,
        options.as_json,
        one_node,
        address is not None or by_variable,
    )


def read_config(path: Path) -> DaemonSettings:
    """Read a daemon's config file. Raises: SettingsError; OSError."""
    values = _read_toml(path)
    return _settings({"listen": LISTEN, **values}, str(path))


def read_environment(environment: Mapping[str, str]) -> DaemonSettings:
    """Read the settings of a daemon whose environment we share. Raises: SettingsError; OSError."""
    values: dict[str, Any] = {}
    if environment.get(f"{ENVIRONMENT_PREFIX}CONFIG"):
        values = {"listen": LISTEN, **_read_toml(Path(environment[f"{ENVIRONMENT_PREFIX}CONFIG"]))}
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            values[name.removeprefix(ENVIRONMENT_PREFIX).lower()] = text
    return _settings(values, "the environment")


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # Not at the top: every command would wait for it, and few have a file.

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SettingsError(f"config file {path} is not valid TOML: {error}") from None


def _check_key(key: bytes, where: object) -> None:
    """Refuse a key that no daemon accepts. Raises: SettingsError."""
    if len(key) < KEY_BYTES_MIN:
        text = f"the key in {where} has {len(key)} bytes; a cluster's key has {KEY_BYTES_MIN} or more"
        raise SettingsError(text)


def _settings(values: Mapping[str, Any], where: str) -> DaemonSettings:
    texts = {key: values.get(key) or "" for key in ("socket", "listen", "cluster", "key", "key_file")}
    wrong = [key for key, value in texts.items() if not isinstance(value, str)]
    if wrong:
        raise SettingsError(f"{wrong[0]} (in {where}) is not a text")
    urls = []
    if texts["socket"] not in ("", "none"):
        urls.append(f"unix://{os.path.abspath(texts['socket'])}")
    host, _, port = texts["listen"].rpartition(":")
    if port not in ("", "0"):
        # For port 0 the system chose a port, and we cannot know which.
        urls.append(f"tcp://{_WILDCARDS.get(host, host)}:{port}")
    key = texts["key"].encode() or None
    if texts["key_file"]:
        key = Path(texts["key_file"]).read_bytes().strip()
    try:
        choose_addresses(urls or None)
    except SaAisError as error:
        raise SettingsError(f"{error} (in {where})") from None
    return DaemonSettings(",".join(urls), texts["cluster"] or CLUSTER, key)
