"""The external register: one key of an etcd cluster, accessed by the JSON gateway of etcd's v3 API.

A swap is a transaction on the key's `mod_revision`; reads and swaps are both linearizable. **An unknown
outcome is reported as unknown**: a swap that may have reached one member is not sent to another one,
because it could then be done twice, or after a later request. The caller reads the register to find out.

This module must not know what a view is. Source: etcd's API reference (v3), "gRPC gateway".
"""

import asyncio
import base64
import binascii
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from ckptd.core.events import AskRegister, RegisterAnswered, RegisterFailed
from ckptd.runtime.errors import ConfigError

ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest answer that we read. etcd itself accepts no request above 1.5 MiB."""

KEEP_ALIVE_S: Final = 60.0
"""How long an idle connection is kept. It is longer than the time between two probes, so that a fail-over
need not wait for a new connection."""

REFUSAL_CHARS_MAX: Final = 200
"""The longest part of etcd's error text that we pass on."""

CONNECT_SHARE: Final = 2
"""Connecting may take half of the time limit. If it takes longer, we know that the request was not sent."""

_REFUSALS: Final = (400, 401, 403)
"""HTTP codes that prove that nothing was done: wrong arguments, no token, no permission."""

_STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old")


@dataclass(slots=True, frozen=True)
class EtcdAccess:
    """Where the register is, and how to access it."""

    endpoints: tuple[str, ...]
    key: str
    timeout_s: float
    """For one request to one member."""

    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    cert_key_file: Path | None = None


class _NotDone(Exception):
    """Nothing was done; another member may be asked."""


class _Unknown(Exception):
    """The member may have done it, or may still do it."""


class _Rejected(Exception):
    """The member answered that it will not do it."""


class EtcdRegister:
    """Reads and swaps one etcd key. Close it at the end."""

    def __init__(self, access: EtcdAccess) -> None:
        """Load the certificates. Raises: ConfigError if they cannot be used."""
        self._access = access
        self._key = _encode(access.key.encode())
        self._preferred = 0
        self._token = ""
        self._client = httpx.AsyncClient(
            verify=_tls_context(access),
            timeout=httpx.Timeout(access.timeout_s, connect=access.timeout_s / CONNECT_SHARE),
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
            # Use no proxy and no .netrc from the environment of the user who started us.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def ask(self, question: AskRegister) -> RegisterAnswered | RegisterFailed:
        """Read or swap, in at most the time limit for each member.

        With a password up to three requests to a member have a limit each: the one with an old token, the
        one for a new token, and the repeated one.
        """
        number = question.number
        try:
            if question.value is None:
                revision, value = await self._read()
                return RegisterAnswered(number, False, revision, value)
            swapped, revision, value = await self._swap(question.revision, question.value)
            return RegisterAnswered(number, swapped, revision, value)
        except (_NotDone, _Unknown, _Rejected) as error:
            return RegisterFailed(number, str(error))

    # -- read and swap

    async def _read(self) -> tuple[int, bytes | None]:
        answer = await self._request_any("/v3/kv/range", {"key": self._key}, may_repeat=True)
        return answer.first_key("kvs")

    async def _swap(self, revision: int, value: bytes) -> tuple[bool, int, bytes | None]:
        condition = {"key": self._key, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
        transaction = {
            "compare": [condition],
            "success": [{"request_put": {"key": self._key, "value": _encode(value)}}],
            "failure": [{"request_range": {"key": self._key}}],
        }
        answer = await self._request_any("/v3/kv/txn", transaction, may_repeat=False)
        if answer.succeeded():
            return True, answer.revision(), value
        return False, *answer.first_key("responses", 0, "response_range", "kvs")

    # -- members

    async def _request_any(self, path: str, question: dict[str, Any], *, may_repeat: bool) -> "_Answer":
        """Ask the member that answered last, then the others. Raises: _NotDone; _Unknown; _Rejected."""
        endpoints = self._access.endpoints
        failures: list[str] = []
        first = self._preferred
        for index in (*range(first, len(endpoints)), *range(first)):
            endpoint = endpoints[index]
            try:
                answer = await self._request(endpoint, path, question)
                answer.check()
            except (_NotDone, _Unknown) as error:
                self._preferred = (index + 1) % len(endpoints)
                if isinstance(error, _Unknown) and not may_repeat:
                    raise _Unknown(f"{endpoint}: {error}") from None
                failures.append(f"{endpoint}: {error}")
            except _Rejected as error:
                raise _Rejected(f"{endpoint}: {error}") from None
            else:
                return answer
        raise _NotDone("; ".join(failures))

    async def _request(self, endpoint: str, path: str, question: dict[str, Any]) -> "_Answer":
        if not self._access.user:
            return await self._post(endpoint, path, question)
        if self._token:
            try:
                return await self._post(endpoint, path, question, self._token)
            except _Rejected as error:
                # etcd refuses an unknown or expired token before it does anything, so we may ask again.
                if not any(text in str(error) for text in _STALE_TOKEN):
                    raise
        self._token = await self._authenticate(endpoint)
        return await self._post(endpoint, path, question, self._token)

    async def _authenticate(self, endpoint: str) -> str:
        """Request a new token. Raises: _NotDone; _Rejected."""
        who = {"name": self._access.user, "password": self._access.password}
        try:
            answer = await self._post(endpoint, "/v3/auth/authenticate", who)
            return answer.token()
        except _Unknown as error:
            raise _NotDone(f"no authentication token: {error}") from None

    async def _post(self, endpoint: str, path: str, question: dict[str, Any], token: str = "") -> "_Answer":
        """Send one request to one member. Raises: _NotDone; _Unknown; _Rejected."""
        headers = {"Authorization": token} if token else {}
        try:
            async with (
                asyncio.timeout(self._access.timeout_s),
                self._client.stream("POST", endpoint + path, json=question, headers=headers) as response,
            ):
                content = b""
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MAX:
                        raise _Unknown(f"the answer exceeds {ANSWER_BYTES_MAX} bytes")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _NotDone(str(error) or "no connection within the time limit") from None
        except (TimeoutError, httpx.TimeoutException):
            raise _Unknown(f"no answer within {self._access.timeout_s:g} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise _Unknown(str(error) or type(error).__name__) from None
        if response.status_code == httpx.codes.OK:
            return _Answer(content)
        refusal = f"HTTP {response.status_code}: {_refusal(content)}"
        if response.status_code in _REFUSALS:
            raise _Rejected(refusal)
        raise _Unknown(refusal)


class _Answer:
    """A member's answer. Every method that reads it raises _Unknown if it is not an answer of etcd's."""

    def __init__(self, content: bytes) -> None:
        try:
            self._fields: Any = json.loads(content)
        except (ValueError, RecursionError):
            raise _Unknown(f"the answer is not JSON: {content[:40]!r}") from None

    def check(self) -> None:
        """Check that the answer has a revision, as every answer about keys has."""
        self.revision()

    def revision(self) -> int:
        """Return the revision of the whole store, which is also that of a value put by the same request."""
        try:
            return int(self._fields["header"]["revision"])
        except (LookupError, TypeError, ValueError, OverflowError):  # (Python's json accepts Infinity.)
            raise _Unknown("the answer lacks a revision") from None

    def succeeded(self) -> bool:
        """Return True if the condition held. The gateway omits fields that are false."""
        return self._fields.get("succeeded", False) is True

    def token(self) -> str:
        """Return the token in an answer to `authenticate`."""
        try:
            return str(self._fields["token"])
        except (LookupError, TypeError):
            raise _Unknown("the answer lacks a token") from None

    def first_key(self, *path: str | int) -> tuple[int, bytes | None]:
        """Return revision and value of the first key in the list at `path`; (0, None) if there is no key."""
        found = self._fields
        try:
            for step in path[:-1]:
                found = found[step]
            keys = found.get(path[-1], [])
            if not keys:
                return 0, None
            return int(keys[0]["mod_revision"]), base64.b64decode(keys[0].get("value", ""), validate=True)
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError, binascii.Error):
            raise _Unknown("the answer has an unexpected shape") from None


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _refusal(content: bytes) -> str:
    """Return etcd's own error text if it has one, otherwise the beginning of the answer."""
    try:
        fields = json.loads(content)
        text = str(fields.get("message") or fields.get("error") or fields)
    except (ValueError, RecursionError, AttributeError):
        text = content.decode("utf-8", "replace")
    return " ".join(text.split())[:REFUSAL_CHARS_MAX]


def _tls_context(access: EtcdAccess) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
        if access.cert_file is not None:
            context.load_cert_chain(access.cert_file, access.cert_key_file, password="")
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"the certificates for etcd cannot be used: {text}") from None
    return context
