"""Reads settings from flags, environment variables and a TOML file; a flag wins over a variable, both over
the file, and defaults come last.

The names of flags and variables are derived from the model, so every setting can be given in all three ways.
"""

import argparse
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ckptd import __version__
from ckptd.runtime.config.model import Config
from ckptd.runtime.config.types import key_fault
from ckptd.runtime.errors import ConfigError
from ckptd.runtime.host.private_files import secret_fault

ENVIRONMENT_PREFIX: Final = "CKPTD_DAEMON_"


class _Parser(argparse.ArgumentParser):
    """Reports an error as ConfigError, in one line, as the other sources do."""

    def error(self, message: str) -> Any:
        raise ConfigError(message)


def flag_name(key: str) -> str:
    """Return the flag of a setting: `--lease-ms`."""
    return "--" + key.replace("_", "-")


def variable_name(key: str) -> str:
    """Return the environment variable of a setting: `CKPTD_DAEMON_LEASE_MS`."""
    return ENVIRONMENT_PREFIX + key.upper()


def flag_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line of `ckptd`."""
    parser = _Parser(
        prog="ckptd",
        description="One node of the checkpoint service. Every setting is a flag, "
        f"an environment variable ({ENVIRONMENT_PREFIX}<KEY>) and a key of the TOML file.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ckptd {__version__}")
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    for key, field in Config.model_fields.items():
        default = (
            "" if field.default_factory or field.default in ("", None) else f" (default: {field.default})"
        )
        if key == "socket_mode":
            default = f" (default: {field.default:04o})"
        help_text = f"{field.description}{default}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(
                flag_name(key), dest=key, nargs="?", const="on", metavar="on|off", help=help_text
            )
        else:
            parser.add_argument(
                flag_name(key), dest=key, metavar=key.rpartition("_")[2].upper(), help=help_text
            )
    return parser


def load_config(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Config:
    """Return the settings of a daemon that is started with these arguments.

    Raises: ConfigError, with one line that says what is wrong and where it was set.
    """
    parsed = vars(flag_parser().parse_args(arguments))
    flags = {key: _as_utf8(text) for key, text in parsed.items() if text is not None}
    variables = {key: _as_utf8(text) for key, text in _read_environment(environment)}
    path = flags.pop("config", variables.pop("config", None))
    variables.pop("config", None)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in (_read_file(Path(path)) if path else {}).items():
        values[key], origins[key] = value, str(path)
    for key, text in variables.items():
        values[key], origins[key] = text, variable_name(key)
    for key, text in flags.items():
        values[key], origins[key] = text, flag_name(key)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, origins)) from None


def read_key(config: Config) -> bytes:
    """Return the cluster's key, b"" if none is set. Raises: ConfigError."""
    if config.key_file is None:
        return config.key.encode()
    key = _read_secret("key_file", config.key_file)
    fault = key_fault(key)
    if fault:
        raise ConfigError(f"key_file {config.key_file}: {fault}")
    return key


def read_etcd_password(config: Config) -> str:
    """Return the password for etcd, "" if none is set. Raises: ConfigError."""
    if config.etcd_password_file is None:
        return ""
    try:
        return _read_secret("etcd_password_file", config.etcd_password_file).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"etcd_password_file {config.etcd_password_file} is not UTF-8") from None


def check_etcd_certificate_key(config: Config) -> None:
    """Refuse a private key for etcd that other users may read. Raises: ConfigError."""
    name = "etcd_cert_key_file" if config.etcd_cert_key_file else "etcd_cert_file"
    path = config.etcd_cert_key_file or config.etcd_cert_file
    if path is not None:
        _read_secret(name, path)


def _read_secret(name: str, path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            fault = secret_fault(path, os.fstat(file.fileno()))
            secret = file.read().strip()
    except OSError as error:
        raise ConfigError(f"{name} {path}: {error.strerror}") from None
    if not fault and not secret:
        fault = "the file is empty"
    if fault:
        raise ConfigError(f"{name} {path}: {fault}")
    return secret


def _as_utf8(text: str) -> str:
    """Decode text as UTF-8 even if the locale cannot; return text with other bytes (a path) unchanged."""
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return text


def _read_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
            if key != "config":
                _check_key(key, name)
            yield key, text


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib  # Not at the top: a daemon without a file would wait for it.

    try:
        with open(path, "rb") as file:
            fault = secret_fault(path, os.fstat(file.fileno()))
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not valid TOML: {error}") from None
    for key in values:
        _check_key(key, str(path))
    if values.get("key") and fault:
        raise ConfigError(f"config file {path} holds the cluster's key, and {fault}")
    return values


def _check_key(key: str, where: str) -> None:
    if key in Config.model_fields:
        return
    close = difflib.get_close_matches(key, Config.model_fields, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigError(f"unknown setting {key} (in {where}){hint}")


def _one_line(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines: list[str] = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        text = fault["msg"].removeprefix("Value error, ")
        key = str(fault["loc"][0]) if fault["loc"] else ""
        lines.append(f"{key} (in {origins.get(key, 'the defaults')}): {text}" if key else text)
    return "; ".join(lines)
