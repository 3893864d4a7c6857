"""The interface of the external register, and the function that makes one from the settings."""

from typing import Protocol

from ckptd.core.events import AskRegister, RegisterAnswered, RegisterFailed
from ckptd.runtime.config.model import Config
from ckptd.runtime.config.sources import check_etcd_certificate_key, read_etcd_password
from ckptd.runtime.errors import ConfigError


class Register(Protocol):
    """One value, changed only by compare-and-swap."""

    async def ask(self, question: AskRegister) -> RegisterAnswered | RegisterFailed:
        """Read or swap the value, in bounded time."""

    async def close(self) -> None:
        """Release all resources."""


def make_register(config: Config) -> Register | None:
    """Return the register that the arbiter needs; None if it needs none. Raises: ConfigError."""
    if config.arbiter != "etcd":
        return None
    try:
        # Imported here because it takes half of a daemon's start-up time, and few daemons need it.
        from ckptd.runtime.etcd.etcd_register import EtcdAccess, EtcdRegister
    except ModuleNotFoundError as error:
        raise ConfigError(f"arbiter etcd needs {error.name}: pip install 'ckptd[etcd]'") from None
    check_etcd_certificate_key(config)
    access = EtcdAccess(
        config.etcd_endpoints,
        config.etcd_register_name,
        config.etcd_timeout_ms / 1000,
        config.etcd_user,
        read_etcd_password(config),
        config.etcd_ca_file,
        config.etcd_cert_file,
        config.etcd_cert_key_file,
    )
    return EtcdRegister(access)
