"""Real `etcd` processes on loopback, for tests of the arbiter `etcd`.

    with EtcdCluster(members=3) as etcd:
        ... etcd.endpoints ...
        etcd.kill(0)

Needs the programs `etcd` (Debian: etcd-server) and, with `tls`, `openssl`; see `ETCD_MISSING`.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ckptd.testing import HeldPort

ETCD_MISSING: Final = "" if shutil.which("etcd") else "etcd is not installed (Debian: etcd-server)"
START_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02
ASK_SECONDS: Final = 2.0
HEARTBEAT_MS: Final = 50
ELECTION_MS: Final = 500
"""Short, since tests kill members; long enough for a machine with two cores."""


class EtcdError(Exception):
    """The cluster did not become healthy in time."""


class Certificates:
    """A certificate authority, and what it signed for a server on 127.0.0.1 and for a client."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ca: Final = directory / "ca.pem"
        self.server: Final = directory / "server.pem"
        self.client: Final = directory / "client.pem"
        self.keys: Final = {path: path.with_suffix(".key") for path in (self.ca, self.server, self.client)}
        new = ["req", "-newkey", "rsa:2048", "-nodes", "-batch"]
        # With the extensions that Python 3.13 insists on.
        usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        _openssl(*new, "-x509", "-days", "2", "-subj", "/CN=test ca", *usage, *self._out(self.ca))
        extensions = directory / "extensions"
        extensions.write_text(
            "subjectAltName=IP:127.0.0.1\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid,issuer\n"
        )
        for path in (self.server, self.client):
            request = path.with_suffix(".csr")
            _openssl(*new, "-subj", f"/CN={path.stem}", "-keyout", str(self.keys[path]), "-out", str(request))
            authority = ["-CA", str(self.ca), "-CAkey", str(self.keys[self.ca]), "-CAcreateserial"]
            signed = ["-in", str(request), "-out", str(path), "-days", "2", "-extfile", str(extensions)]
            _openssl("x509", "-req", *authority, *signed)

    def _out(self, path: Path) -> list[str]:
        return ["-keyout", str(self.keys[path]), "-out", str(path)]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class EtcdCluster:
    """`members` processes of one cluster. `tls`: only https, and every client needs a certificate.

    A method's `member` is an index. `close`, or the end of the block, ends everything.
    """

    def __init__(self, members: int = 1, *, tls: bool = False) -> None:
        self.directory: Final = Path(tempfile.mkdtemp(prefix="ckptd-etcd-"))
        self.certificates: Final = Certificates(self.directory / "tls") if tls else None
        scheme = "https" if tls else "http"
        self._ports = tuple(HeldPort() for _ in range(2 * members))
        numbers = [port.number for port in self._ports]
        self.endpoints: Final = tuple(f"{scheme}://127.0.0.1:{number}" for number in numbers[:members])
        self._peers = tuple(f"http://127.0.0.1:{number}" for number in numbers[members:])
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        atexit.register(self.close)
        try:
            for member in range(len(self.endpoints)):
                self.start(member)
            self.wait_healthy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs and remove the directory. May be called again."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        for port in self._ports:
            port.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    # -- processes

    @property
    def running(self) -> tuple[int, ...]:
        """Return the members whose processes run (or are paused)."""
        return tuple(m for m, process in sorted(self._processes.items()) if process.poll() is None)

    def start(self, member: int) -> None:
        """Start a member that does not run; `wait_healthy` waits until it answers."""
        cluster = ",".join(f"m{number}={url}" for number, url in enumerate(self._peers))
        command = ["etcd", "--name", f"m{member}", "--data-dir", str(self.directory / f"m{member}")]
        command += ["--listen-client-urls", self.endpoints[member]]
        command += ["--advertise-client-urls", self.endpoints[member]]
        command += ["--listen-peer-urls", self._peers[member]]
        command += ["--initial-advertise-peer-urls", self._peers[member]]
        command += ["--initial-cluster", cluster, "--initial-cluster-token", self.directory.name]
        command += ["--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(ELECTION_MS)]
        certificates = self.certificates
        if certificates is not None:
            command += ["--cert-file", str(certificates.server)]
            command += ["--key-file", str(certificates.keys[certificates.server])]
            command += ["--client-cert-auth", "--trusted-ca-file", str(certificates.ca)]
        with (self.directory / f"m{member}.log").open("ab") as log:
            self._processes[member] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, member: int) -> None:
        """SIGKILL."""
        self._processes[member].kill()
        self._processes[member].wait()

    def pause(self, member: int) -> None:
        """SIGSTOP: connections to it succeed, and are never answered."""
        os.kill(self._processes[member].pid, signal.SIGSTOP)

    def resume(self, member: int) -> None:
        """SIGCONT."""
        os.kill(self._processes[member].pid, signal.SIGCONT)

    # -- asking

    def post(self, member: int, path: str, question: dict[str, Any], token: str = "") -> Any:
        """Return what a member's JSON gateway answers. Raises: OSError (HTTPError if it refuses)."""
        headers = {"Authorization": token} if token else {}
        request = urllib.request.Request(
            self.endpoints[member] + path, json.dumps(question).encode(), headers
        )
        context = None
        certificates = self.certificates
        if certificates is not None:
            context = ssl.create_default_context(cafile=certificates.ca)
            # Python 3.13 does this on its own; so every Python finds the certificates that 3.13 refuses.
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            context.load_cert_chain(certificates.client, certificates.keys[certificates.client])
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=ASK_SECONDS) as answer:
            return json.loads(answer.read())

    def enable_passwords(self, root_password: str) -> None:
        """Demand a name and a password from every client from now on; the only user is `root`."""
        self.post(0, "/v3/auth/user/add", {"name": "root", "password": root_password})
        self.post(0, "/v3/auth/role/add", {"name": "root"})
        self.post(0, "/v3/auth/user/grant", {"user": "root", "role": "root"})
        self.post(0, "/v3/auth/enable", {})

    def forget_tokens(self, root_password: str) -> None:
        """Make etcd forget every token of `root`, by setting the same password again."""
        root = {"name": "root", "password": root_password}
        token = self.post(0, "/v3/auth/authenticate", root)["token"]
        self.post(0, "/v3/auth/user/changepw", root, token)

    def wait_healthy(self, seconds: float = START_SECONDS) -> None:
        """Wait until every member that runs answers a linearizable read (or demands a password)."""
        deadline = time.monotonic() + seconds
        waiting = list(self.running)
        while waiting:
            with contextlib.suppress(OSError):
                if self._answers(waiting[0]):
                    waiting.pop(0)
                    continue
            if time.monotonic() > deadline:
                log = (self.directory / f"m{waiting[0]}.log").read_bytes()[-1000:].decode(errors="replace")
                raise EtcdError(f"member {waiting[0]} is not healthy: {log}")
            time.sleep(POLL_SECONDS)

    def _answers(self, member: int) -> bool:
        try:
            return "header" in self.post(member, "/v3/kv/range", {"key": "YQ=="})
        except urllib.error.HTTPError as error:
            with error:
                return error.code in (400, 401)
