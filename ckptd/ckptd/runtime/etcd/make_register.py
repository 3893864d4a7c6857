"""The register outside, as the daemon knows it, and how one is made from the settings."""

from typing import Protocol

from ckptd.core.events import AskRegister, RegisterAnswered, RegisterFailed
from ckptd.runtime.config.model import Config
from ckptd.runtime.config.sources import check_etcd_certificate_key, read_etcd_password
from ckptd.runtime.errors import ConfigRefused


class Register(Protocol):
    """One value that only a compare-and-swap changes."""

    async def ask(self, question: AskRegister) -> RegisterAnswered | RegisterFailed:
        """Read it or swap it, in bounded time."""

    async def close(self) -> None:
        """Give up what it holds."""


def make_register(config: Config) -> Register | None:
    """The register that the arbiter needs, None where it needs none. Raises: ConfigRefused."""
    if config.arbiter != "etcd":
        return None
    try:
        # Half of a daemon's start, and needed by few.
        from ckptd.runtime.etcd.gateway import EtcdAccess, EtcdRegister
    except ModuleNotFoundError as error:
        raise ConfigRefused(f"arbiter etcd needs {error.name}: pip install 'ckptd[etcd]'") from None
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
