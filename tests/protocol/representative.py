"""One representative frame of every kind, with fields that show where each number and each text goes.

`golden.txt` holds each of them as bytes. When you add a kind, add it to both. What is there never changes,
since existing clients read it in this form.
"""

from dataclasses import dataclass
from typing import Any, Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import NOT_EXIST
from ckpt_protocol.constants import SA_CKPT_SECTION_VALID, SA_CKPT_SECTIONS_ANY, SA_TIME_END
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import (
    FORWARD_REFUSED_ROUTE,
    FORWARD_ROUTE,
    REPLICATE_ROUTE,
    Change,
    Kind,
    Op,
    answer_error,
    answer_ok,
)

NONCE_A: Final = bytes(range(16))
NONCE_B: Final = bytes(range(16, 32))
VIEW: Final = [5, [["a", 11, 1], ["b", 22, 4]], [["c", 33, 1, 3]], 1]
ATTRIBUTES: Final = [1, 102_400, 10**9, 100, 1024, 32]
CREATION_ID: Final = (4 << 40) + 9
HEARTBEAT: Final = [
    *["a", 11, 5, 5, 4, [["b", 22, True]], ["c"], 22, "prod", [["c", 33]], [[CREATION_ID, 7]]],
]
WHOLE_VIEW: Final = [*VIEW, [["w", 44]], False, [3]]
DIRECTORY: Final = [
    *[4, 12],
    [
        [
            *[
                CREATION_ID,
                b"state",
                ATTRIBUTES,
                10**9,
                [["a", True], ["b", False]],
                "a",
                [[77, 2, 7]],
                False,
            ],
            *[5_000, [], 9, 0, 1_700_000_000 * 10**9],
        ]
    ],
    [[77, "a", 1, [[2, CREATION_ID, 7]], 2, [[2, 9, b"\x91\x01"]]]],
    [["a", 11], ["b", 22]],
]
SECRET: Final = 2**64 - 1
UPDATE: Final = [[Op.PUT, b"key", b"value", None]]


@dataclass(frozen=True)
class Representative:
    """A frame's kind by name, its three numbers and its body."""

    kind: str
    a: int
    b: int
    c: int
    body: bytes
    variant: str = ""

    @property
    def name(self) -> str:
        """Return what its line in the golden file begins with."""
        return f"{self.kind}.{self.variant}" if self.variant else self.kind

    def encode(self) -> bytes:
        """Return it as bytes."""
        return encode_frame(getattr(Kind, self.kind), self.a, self.b, self.c, self.body)


def _frame(kind: str, a: int, b: int, c: int, content: Any, variant: str = "") -> Representative:
    return Representative(kind, a, b, c, pack_body(content), variant)


_FIRST_EXCHANGE: Final = [
    _frame("HELLO", 1, 1, 1, ["ckptd", "prod", NONCE_A, "", 0, []], "client"),
    _frame("HELLO", 1, 1, 2, ["ckptd", "prod", NONCE_A, "b", 22, ["tcp://host-b:7301"]], "peer"),
    _frame("WELCOME", 1, 1, 11, ["prod", NONCE_B, "a", bytes(32), ["tcp://host-a:7301"]]),
    Representative("PROOF", 0, 0, 0, bytes(range(32))),
    _frame("REFUSED", 3, 1, 1, ["we speak protocol 1 to 1"]),
    _frame("REFUSED", 6, 1, 1, ["a later start is known", 23], "later"),
    _frame("HELLO", 1, 1, 1, ["ckptd", "prod", NONCE_B, "c", 33, [], NONCE_A], "asking"),
    Representative("TAKEN", 0, 0, 0, b""),
]

_REQUESTS: Final = [
    _frame("ATTACH", 1, 2**63 - 1, 1, [True]),
    _frame("DETACH", 9, 0, 9, []),
    _frame("OPEN", 2, 0, 2, [b"state", 7, ATTRIBUTES, True], "create"),
    _frame("OPEN", 3, 0, 2, [b"state", 1, None, False], "existing"),
    _frame("CLOSE", 4, 2, 4, []),
    _frame("UNLINK", 5, 0, 4, [b"state"]),
    _frame("RETENTION_SET", 6, 2, 6, [SA_TIME_END]),
    _frame("ACTIVE_SET", 7, 2, 7, [True]),
    _frame("STATUS", 8, 2, 8, []),
    _frame("UPDATE", 9, 2, 8, [[Op.CREATE, b"", SA_TIME_END, b"new"]], "CREATE"),
    _frame("UPDATE", 9, 2, 8, [[Op.DELETE, b"k"]], "DELETE"),
    _frame("UPDATE", 9, 2, 8, [[Op.OVERWRITE, b"k", b"all of it"]], "OVERWRITE"),
    _frame("UPDATE", 9, 2, 8, [[Op.WRITE, b"k", 2**63 - 1, b"tail"]], "WRITE"),
    _frame("UPDATE", 9, 2, 8, [[Op.EXPIRATION_SET, b"k", 1_700_000_000 * 10**9]], "EXPIRATION_SET"),
    _frame("UPDATE", 9, 2, 8, UPDATE, "PUT"),
    _frame("UPDATE", 9, 2, 8, [[Op.PATCH, b"k", 0, b"head", SA_TIME_END], [Op.DELETE, b"l"]], "PATCH"),
    _frame("READ", 10, 2, 10, [[b"k", 0, None], [b"l", 4, 8]]),
    _frame("ITERATE", 11, 2, 11, [SA_CKPT_SECTIONS_ANY, 0, b"k", True]),
    _frame("SYNCHRONIZE", 12, 2, 12, []),
    _frame("DESCRIBE", 13, 0, 13, ["cluster"]),
    _frame("PING", 14, 0, 14, []),
    _frame("OPERATE", 15, 0, 15, ["accept-loss", "b"]),
    _frame("TRACK", 16, 2, 17, [None, 0], "begin"),
    _frame("TRACK", 18, 2, 17, [(1 << 40) + 7, 3], "on"),
    _frame(
        "UPDATE", 19, 2, 19, [[Op.LEAD, 2, 2**64 - 1, 5 * 10**9, True, False, "app", "host-a", 99]], "LEAD"
    ),
    _frame("UPDATE", 20, 2, 19, [[Op.RESIGN, 2, "app"]], "RESIGN"),
    _frame("UPDATE", 21, 2, 19, [[Op.REVOKE, 5, 17]], "REVOKE"),
    _frame("UPDATE", 22, 2, 19, [*UPDATE, [Op.TOKEN, 5, 17, SECRET, 0]], "TOKEN"),
    _frame("UPDATE", 23, 2, 19, [[Op.REQUIRE, b"key", None], *UPDATE], "REQUIRE"),
    _frame("UPDATE", 26, 2, 24, [*UPDATE, [Op.EXPIRE_AFTER, b"key", 30 * 10**9]], "EXPIRE_AFTER"),
    _frame("UPDATE", 30, 2, 24, [[Op.REMOVE, b"k"], *UPDATE], "REMOVE"),
    _frame("READ", 27, 2, 24, [[b"k", 0, None, True, True]], "all"),
    _frame("ITERATE", 28, 2, 24, [SA_CKPT_SECTIONS_ANY, 0, None, True, None, False, True], "position"),
    _frame("TRACK", 29, 2, 24, [(1 << 40) + 7, 3, True, b"job:", False], "prefix"),
    _frame("UPDATE", 30, 2, 26, [[Op.RESIZE, 200, None, 64, True]], "RESIZE"),
    _frame("LEADER", 24, 2, 24, [2, 5, 17, False]),
    _frame("LEADER_TRACK", 25, 2, 24, [2, (5 << 40) + 17]),
]

_ANSWERS: Final = [
    Representative("ANSWER", 4, 5, 0, answer_ok(), "ok"),
    Representative("ANSWER", 1, 5, 0, answer_ok(["a", [["a", ["tcp://host-a:7301"]], ["b", []]]]), "attach"),
    Representative("ANSWER", 2, 5, 0, answer_ok([2, CREATION_ID, ATTRIBUTES]), "open"),
    Representative("ANSWER", 9, 5, 1, answer_ok([b"\0\0\0\0\0\0\0\x07"]), "generated"),
    Representative("ANSWER", 10, 5, 2, answer_ok([b"value", b""]), "read"),
    Representative(
        "ANSWER",
        11,
        5,
        2,
        answer_ok([[[b"k", SA_TIME_END, 5, SA_CKPT_SECTION_VALID, 1_700_000_000 * 10**9, b"value"]], None]),
        "iterate",
    ),
    Representative(
        "ANSWER", 8, 5, 1, answer_ok([ATTRIBUTES, 1, 5, "a", [["a", True], ["b", False]], 1, False]), "status"
    ),
    Representative(
        "ANSWER",
        18,
        5,
        1,
        answer_ok([(1 << 40) + 8, [[(1 << 40) + 8, Change.WRITTEN, b"k", 4, 8, 0]], 3]),
        "track",
    ),
    Representative("ANSWER", 10, 5, 1, answer_error(12, "there is no section b'k'", 0), "not-exist"),
    Representative("ANSWER", 9, 5, 0, answer_error(6, "a replica lags behind"), "try-again"),
]

_BETWEEN_DAEMONS: Final = [
    _frame("HEARTBEAT", 1_000_000_007, 5, 999_999_937, ["a", 11, 5, 5, 4, [["b", 22, True]], ["c"], 22]),
    _frame("HEARTBEAT", 1_000_000_007, 5, 999_999_937, HEARTBEAT, "whole"),
    Representative(
        "FORWARD", 9, 5, 77, FORWARD_ROUTE.pack(Kind.UPDATE, CREATION_ID, 8, 10) + pack_body(UPDATE)
    ),
    Representative("FORWARD_ANSWER", 9, 5, 77, answer_ok()),
    Representative(
        "REPLICATE",
        CREATION_ID,
        5,
        7,
        REPLICATE_ROUTE.pack(77, 9, 8, 1_700_000_000 * 10**9, 6, 4) + pack_body(UPDATE),
        "update",
    ),
    Representative(
        "REPLICATE",
        CREATION_ID,
        5,
        8,
        REPLICATE_ROUTE.pack(0, 0, 0, 1_700_000_000 * 10**9, 7, 5)
        + pack_body(
            [[[Op.PIECE, b"k", 5, 0, b"value", SA_TIME_END, 1], [Op.REMOVE, b"l"]], [[77, 9, 8, answer_ok()]]]
        ),
        "batch",
    ),
    _frame("REPLICATE", 0, 5, 11, [[6, b"state"], 77, 5, 4, answer_ok()], "directory"),
    Representative("ACK", CREATION_ID, 5, 7, b"", "staged"),
    _frame("ACK", CREATION_ID, 5, 7, [9], "report"),
    Representative("COMMIT", CREATION_ID, 5, 7, b""),
    Representative("QUERY", CREATION_ID, 5, 3, b""),
    Representative("QUERIED", CREATION_ID, 5, 3, b""),
    _frame("JOIN", CREATION_ID, 5, 7, [4, True]),
    _frame(
        "CHUNK",
        CREATION_ID,
        5,
        7,
        [
            1,
            [[b"kept"], [b"k", b"value", SA_TIME_END, 1, 7, SA_CKPT_SECTION_VALID]],
            [5, [[4, 6]], [[77, 8, [[9, 7, answer_ok()]]]], True],
        ],
    ),
    Representative("CHUNK_ACK", CREATION_ID, 5, 1, b""),
    Representative("JOINED", CREATION_ID, 5, 7, b""),
    _frame("ASK", 0, 5, 0, [9, CREATION_ID, "b"]),
    Representative("WITHDRAW", 5, 5, 9, b""),
    Representative(
        "FORWARD_REFUSED",
        9,
        5,
        77,
        FORWARD_REFUSED_ROUTE.pack(8) + answer_error(NOT_EXIST, "no section"),
    ),
    _frame("PREPARE", 3, 5, 0, ["a"]),
    _frame("PROMISE", 3, 5, 1, ["a", [3, "a"], [2, "b"], VIEW]),
    _frame("ACCEPT", 3, 5, 0, ["a", VIEW]),
    _frame("ACCEPTED", 3, 5, 1, ["a", [3, "a"]]),
    _frame("COLLECT", 0, 5, 11, [VIEW, 4]),
    _frame("COLLECTED", 0, 5, 12, [4, 11, pack_body([[13], 0, 0, 0, b""]), None]),
    _frame("COLLECTED", 0, 5, 12, [4, 11, pack_body([[13], 0, 0, 0, b""]), DIRECTORY, 3], "whole"),
    _frame("INSTALL", 0, 5, 12, [VIEW, 4, pack_body([4, 12, [], []]), ["a"]]),
    _frame("INSTALL", 0, 5, 12, [WHOLE_VIEW, 4, pack_body(DIRECTORY), ["a"], True], "whole"),
    _frame("DECIDED", 0, 5, 0, [VIEW]),
    Representative("STOP", 0, 5, 0, b""),
    _frame("FAULTS", 0, 5, 0, [[["b", 12, 3, CREATION_ID, 5, 8, 7, 9]], [CREATION_ID]]),
    _frame(
        "DIRECTORY", 1, 5, 0, [[1, 4, 12, [["a", 11]]], [3, 77, "a", 1, 8], [4, 77, [[2, CREATION_ID, 7]]]]
    ),
    Representative("DIRECTORY_ACK", 1, 5, 0, b""),
    _frame("NODES", 0, 0, 0, [["a", "b"], ["w"]]),
]

REPRESENTATIVES: Final = (*_FIRST_EXCHANGE, *_REQUESTS, *_ANSWERS, *_BETWEEN_DAEMONS)


def kind_numbers() -> dict[str, int]:
    """Return every kind of frame, by name."""
    return {name: value for name, value in vars(Kind).items() if name.isupper()}


def op_numbers() -> dict[str, int]:
    """Return every section operation, by name."""
    return {name: value for name, value in vars(Op).items() if name.isupper()}
