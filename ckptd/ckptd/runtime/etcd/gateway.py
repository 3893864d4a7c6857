"""The register outside: one key of an etcd cluster, through the JSON gateway of its v3 API.

A swap is a transaction on the key's `mod_revision`, and both kinds of question are
linearizable. **An outcome that is not known is told as unknown**: a swap that may have
reached one member is not sent to another, since it could be done twice or overtake what
follows it. Whoever asked reads the register, and knows.

It must not know what a view is. Source: etcd's API reference (v3), "gRPC gateway".
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
from ckptd.runtime.errors import ConfigRefused

ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one answer; etcd itself takes no request above 1.5 MiB."""

KEEP_ALIVE_S: Final = 60.0
"""Longer than between two probes: a fail-over does not pay for a new connection."""

REFUSAL_CHARS_MAX: Final = 200
"""Of an error's text that is passed on."""

CONNECT_SHARE: Final = 2
"""Half of the time limit is for connecting, so that a request that was not sent is known not to be."""

_REFUSALS: Final = (400, 401, 403)
"""HTTP codes with which nothing was done: wrong arguments, no token, no rights."""

_STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old")


@dataclass(slots=True, frozen=True)
class EtcdAccess:
    """Where the register is and how we may reach it. `timeout_s`: for one request to one member."""

    endpoints: tuple[str, ...]
    key: str
    timeout_s: float
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    cert_key_file: Path | None = None


class _NotDone(Exception):
    """Nothing was done, and another member may be asked."""


class _Unknown(Exception):
    """The member may have done it, or may do it yet."""


class _Refused(Exception):
    """The member answered that it does not do it."""


class EtcdRegister:
    """Asks for one key. Close it at the end."""

    def __init__(self, access: EtcdAccess) -> None:
        """Raises: ConfigRefused where the certificates cannot be used."""
        self._access = access
        self._key = _encode(access.key.encode())
        self._preferred = 0
        self._token = ""
        self._client = httpx.AsyncClient(
            verify=_tls_context(access),
            timeout=httpx.Timeout(access.timeout_s, connect=access.timeout_s / CONNECT_SHARE),
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
            # Neither a proxy nor a .netrc of whoever started us stands between a node and its arbiter.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def ask(self, question: AskRegister) -> RegisterAnswered | RegisterFailed:
        """Read or swap, in at most the time limit for each member (and as much again with a password)."""
        number = question.number
        try:
            if question.value is None:
                revision, value = await self._read()
                return RegisterAnswered(number, False, revision, value)
            swapped, revision, value = await self._swap(question.revision, question.value)
            return RegisterAnswered(number, swapped, revision, value)
        except (_NotDone, _Unknown, _Refused) as error:
            return RegisterFailed(number, str(error))

    # -- the two questions

    async def _read(self) -> tuple[int, bytes | None]:
        answer = await self._ask_any("/v3/kv/range", {"key": self._key}, may_repeat=True)
        return answer.held("kvs")

    async def _swap(self, revision: int, value: bytes) -> tuple[bool, int, bytes | None]:
        condition = {"key": self._key, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
        transaction = {
            "compare": [condition],
            "success": [{"request_put": {"key": self._key, "value": _encode(value)}}],
            "failure": [{"request_range": {"key": self._key}}],
        }
        answer = await self._ask_any("/v3/kv/txn", transaction, may_repeat=False)
        if answer.succeeded():
            return True, answer.revision(), value
        return False, *answer.held("responses", 0, "response_range", "kvs")

    # -- members

    async def _ask_any(self, path: str, question: dict[str, Any], *, may_repeat: bool) -> "_Answer":
        """Ask the member that answered last, then the others. Raises: _NotDone; _Unknown; _Refused."""
        endpoints = self._access.endpoints
        failures: list[str] = []
        first = self._preferred
        for index in (*range(first, len(endpoints)), *range(first)):
            endpoint = endpoints[index]
            try:
                answer = await self._ask(endpoint, path, question)
                answer.check()
            except (_NotDone, _Unknown) as error:
                self._preferred = (index + 1) % len(endpoints)
                if isinstance(error, _Unknown) and not may_repeat:
                    raise _Unknown(f"{endpoint}: {error}") from None
                failures.append(f"{endpoint}: {error}")
            except _Refused as error:
                raise _Refused(f"{endpoint}: {error}") from None
            else:
                return answer
        raise _NotDone("; ".join(failures))

    async def _ask(self, endpoint: str, path: str, question: dict[str, Any]) -> "_Answer":
        if not self._access.user:
            return await self._post(endpoint, path, question)
        if self._token:
            try:
                return await self._post(endpoint, path, question, self._token)
            except _Refused as error:
                # A token that etcd does not know (any more) is refused before anything is done.
                if not any(text in str(error) for text in _STALE_TOKEN):
                    raise
        self._token = await self._authenticate(endpoint)
        return await self._post(endpoint, path, question, self._token)

    async def _authenticate(self, endpoint: str) -> str:
        """A new token. Raises: _NotDone; _Refused."""
        who = {"name": self._access.user, "password": self._access.password}
        try:
            answer = await self._post(endpoint, "/v3/auth/authenticate", who)
            return answer.token()
        except _Unknown as error:
            raise _NotDone(f"no token: {error}") from None

    async def _post(self, endpoint: str, path: str, question: dict[str, Any], token: str = "") -> "_Answer":
        """One request to one member. Raises: _NotDone; _Unknown; _Refused."""
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
                        raise _Unknown(f"an answer above {ANSWER_BYTES_MAX} bytes")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _NotDone(str(error) or "no connection in time") from None
        except (TimeoutError, httpx.TimeoutException):
            raise _Unknown(f"no answer within {self._access.timeout_s:g} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise _Unknown(str(error) or type(error).__name__) from None
        if response.status_code == httpx.codes.OK:
            return _Answer(content)
        refusal = f"HTTP {response.status_code}: {_refusal(content)}"
        if response.status_code in _REFUSALS:
            raise _Refused(refusal)
        raise _Unknown(refusal)


class _Answer:
    """What a member answered; everything that reads it raises _Unknown where it is no answer of etcd."""

    def __init__(self, content: bytes) -> None:
        try:
            self._fields: Any = json.loads(content)
        except (ValueError, RecursionError):
            raise _Unknown(f"an answer that is no JSON: {content[:40]!r}") from None

    def check(self) -> None:
        """Every answer about keys says at which revision it was true."""
        self.revision()

    def revision(self) -> int:
        """Of the whole store, and of what was put by the same request."""
        try:
            return int(self._fields["header"]["revision"])
        except (LookupError, TypeError, ValueError, OverflowError):  # JSON of Python's knows Infinity.
            raise _Unknown("an answer without a revision") from None

    def succeeded(self) -> bool:
        """Whether the condition held; the gateway leaves out what is false."""
        return self._fields.get("succeeded", False) is True

    def token(self) -> str:
        """What `authenticate` gave."""
        try:
            return str(self._fields["token"])
        except (LookupError, TypeError):
            raise _Unknown("an answer without a token") from None

    def held(self, *path: str | int) -> tuple[int, bytes | None]:
        """Revision and value of the one key in a list of keys; (0, None) where there is none."""
        found = self._fields
        try:
            for step in path[:-1]:
                found = found[step]
            keys = found.get(path[-1], [])
            if not keys:
                return 0, None
            return int(keys[0]["mod_revision"]), base64.b64decode(keys[0].get("value", ""), validate=True)
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError, binascii.Error):
            raise _Unknown("an answer of another shape") from None


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _refusal(content: bytes) -> str:
    """etcd's own words, where there are any."""
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
        raise ConfigRefused(f"the certificates for etcd cannot be used: {text}") from None
    return context
