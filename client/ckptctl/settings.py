"""How a command reaches the cluster: by its own options, else as the daemon's settings say.

An operator has the daemon's config file, or its environment where `ckptctl` runs in the daemon's container.
Only what a client needs of them is read: where the daemon listens, and the cluster's name and key.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ckpt_client.errors import SaAisError
from ckpt_client.session.address import ADDRESS_VARIABLE, KEY_VARIABLE, Address, choose_addresses, choose_key
from ckpt_protocol.greeting import Identity
from ckpt_protocol.limits import KEY_BYTES_MIN

ENVIRONMENT_PREFIX: Final = "CKPTD_DAEMON_"
CLUSTER: Final = "ckptd"
"""What a daemon calls its cluster where no setting says otherwise."""

LISTEN: Final = "127.0.0.1:7301"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class SettingsWrong(Exception):
    """A file with settings cannot be understood; the text says why."""


@dataclass(slots=True, frozen=True)
class Given:
    """What the command line says; None and False where it says nothing."""

    address: str | None = None
    as_json: bool = False
    timeout: float | None = None
    key_file: Path | None = None
    config: Path | None = None

    def over(self, earlier: "Given") -> "Given":
        """These options, and those that stood before the command's name where nothing is said here."""
        return Given(
            earlier.address if self.address is None else self.address,
            self.as_json or earlier.as_json,
            earlier.timeout if self.timeout is None else self.timeout,
            self.key_file or earlier.key_file,
            self.config or earlier.config,
        )


@dataclass(slots=True, frozen=True)
class Access:
    """Where to ask, as whom, how long, and how to print what is said.

    `one_node`: whether the addresses are all of one node, however many they are. `named`: whether somebody
    named them; else they are where the local daemon's socket usually is.
    """

    addresses: tuple[Address, ...]
    cluster: str
    key: bytes
    timeout: float
    as_json: bool
    one_node: bool
    named: bool

    @property
    def identity(self) -> Identity:
        """As what a node is greeted."""
        return Identity(self.cluster, self.key)

    @property
    def of_client(self) -> dict[str, Any]:
        """The same for a `Table` or a `Connection`."""
        urls = [str(address) for address in self.addresses] if self.named else None
        return {"address": urls, "cluster": self.cluster, "key": self.key}


class DaemonSettings(NamedTuple):
    """Where a daemon listens, "" where that is not said; its cluster's name, and key where there is one."""

    address: str
    cluster: str
    key: bytes | None


def resolve(given: Given, timeout: float, environment: Mapping[str, str] = os.environ) -> Access:
    """The access that a command has; `timeout` is the command's own.

    A flag goes before `CKPTD_ADDRESS` and `CKPTD_KEY`, and these before the daemon's environment.
    Raises: SaAisError INVALID_PARAM for an address; SettingsWrong; OSError.
    """
    told = read_config(given.config) if given.config else DaemonSettings("", "", None)
    address, cluster, key, one_node = given.address, told.cluster, told.key, False
    if address is None and told.address:
        address, one_node = told.address, True
    key_from: object = KEY_VARIABLE if key is None else given.config
    if given.key_file is not None:
        key = given.key_file.read_bytes().strip()
    by_variable = address is None and bool(environment.get(ADDRESS_VARIABLE, "").strip())
    lacks_address = address is None and not by_variable
    lacks_key = key is None and not environment.get(KEY_VARIABLE)
    if lacks_address or lacks_key:
        around = read_environment(environment)
        if lacks_key:
            key, key_from = around.key, "the environment"
        if lacks_address and around.address:
            address, cluster, one_node = around.address, cluster or around.cluster, True
    chosen_key = choose_key(key)
    if chosen_key:
        _check_key(chosen_key, given.key_file or key_from)
    return Access(
        choose_addresses(address),
        cluster,
        chosen_key,
        timeout if given.timeout is None else given.timeout,
        given.as_json,
        one_node,
        address is not None or by_variable,
    )


def read_config(path: Path) -> DaemonSettings:
    """A daemon's config file. Raises: SettingsWrong; OSError."""
    values = _read_toml(path)
    return _settings({"listen": LISTEN, **values}, str(path))


def read_environment(environment: Mapping[str, str]) -> DaemonSettings:
    """The settings of a daemon in whose environment we are. Raises: SettingsWrong; OSError."""
    values: dict[str, Any] = {}
    if environment.get(f"{ENVIRONMENT_PREFIX}CONFIG"):
        values = {"listen": LISTEN, **_read_toml(Path(environment[f"{ENVIRONMENT_PREFIX}CONFIG"]))}
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            values[name.removeprefix(ENVIRONMENT_PREFIX).lower()] = text
    return _settings(values, "the environment")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise SettingsWrong(f"config file {path} is no TOML: {error}") from None


def _check_key(key: bytes, where: object) -> None:
    """Refuse a cluster's key that no daemon takes. Raises: SettingsWrong."""
    if len(key) < KEY_BYTES_MIN:
        text = f"the key in {where} has {len(key)} bytes; a cluster's has {KEY_BYTES_MIN} or more"
        raise SettingsWrong(text)


def _settings(values: Mapping[str, Any], where: str) -> DaemonSettings:
    texts = {key: values.get(key) or "" for key in ("socket", "listen", "cluster", "key", "key_file")}
    wrong = [key for key, value in texts.items() if not isinstance(value, str)]
    if wrong:
        raise SettingsWrong(f"{wrong[0]} (in {where}) is no text")
    urls = []
    if texts["socket"] not in ("", "none"):
        urls.append(f"unix://{os.path.abspath(texts['socket'])}")
    host, _, port = texts["listen"].rpartition(":")
    if port not in ("", "0"):
        # Of port 0 nobody knows what it became.
        urls.append(f"tcp://{_WILDCARDS.get(host, host)}:{port}")
    key = texts["key"].encode() or None
    if texts["key_file"]:
        key = Path(texts["key_file"]).read_bytes().strip()
    try:
        choose_addresses(urls or None)
    except SaAisError as error:
        raise SettingsWrong(f"{error} (in {where})") from None
    return DaemonSettings(",".join(urls), texts["cluster"] or CLUSTER, key)
