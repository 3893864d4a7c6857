"""The numbers of the SA Forum and of the wire, written out: they never change."""

from typing import Any

import pytest
from tests.protocol.representative import kind_numbers, op_numbers

from ckpt_protocol import codes, constants, limits
from ckpt_protocol.codes import SaAisErrorT, code_name
from ckpt_protocol.messages import FORWARD_ROUTE, REPLICATE_ROUTE

CODES = {
    "OK": 1,
    "ERR_LIBRARY": 2,
    "ERR_VERSION": 3,
    "ERR_INIT": 4,
    "ERR_TIMEOUT": 5,
    "ERR_TRY_AGAIN": 6,
    "ERR_INVALID_PARAM": 7,
    "ERR_NO_MEMORY": 8,
    "ERR_BAD_HANDLE": 9,
    "ERR_BUSY": 10,
    "ERR_ACCESS": 11,
    "ERR_NOT_EXIST": 12,
    "ERR_NAME_TOO_LONG": 13,
    "ERR_EXIST": 14,
    "ERR_NO_SPACE": 15,
    "ERR_INTERRUPT": 16,
    "ERR_NAME_NOT_FOUND": 17,
    "ERR_NO_RESOURCES": 18,
    "ERR_NOT_SUPPORTED": 19,
    "ERR_BAD_OPERATION": 20,
    "ERR_FAILED_OPERATION": 21,
    "ERR_MESSAGE_ERROR": 22,
    "ERR_QUEUE_FULL": 23,
    "ERR_QUEUE_NOT_AVAILABLE": 24,
    "ERR_BAD_FLAGS": 25,
    "ERR_TOO_BIG": 26,
    "ERR_NO_SECTIONS": 27,
    "ERR_NO_OP": 28,
    "ERR_REPAIR_PENDING": 29,
    "ERR_NO_BINDINGS": 30,
    "ERR_UNAVAILABLE": 31,
    "ERR_CAMPAIGN_ERROR_DETECTED": 32,
    "ERR_CAMPAIGN_PROC_FAILED": 33,
    "ERR_CAMPAIGN_CANCELED": 34,
    "ERR_CAMPAIGN_FAILED": 35,
    "ERR_CAMPAIGN_SUSPENDED": 36,
    "ERR_CAMPAIGN_SUSPENDING": 37,
    "ERR_ACCESS_DENIED": 38,
    "ERR_NOT_READY": 39,
    "ERR_DEPLOYMENT": 40,
}

CONSTANTS = {
    "SA_TIME_UNKNOWN": -0x8000000000000000,
    "SA_TIME_BEGIN": 0,
    "SA_TIME_END": 0x7FFFFFFFFFFFFFFF,
    "SA_TIME_MAX": 0x7FFFFFFFFFFFFFFF,
    "SA_TIME_ONE_MICROSECOND": 1_000,
    "SA_TIME_ONE_MILLISECOND": 1_000_000,
    "SA_TIME_ONE_SECOND": 1_000_000_000,
    "SA_TIME_ONE_MINUTE": 60_000_000_000,
    "SA_TIME_ONE_HOUR": 3_600_000_000_000,
    "SA_TIME_ONE_DAY": 86_400_000_000_000,
    "SA_CKPT_WR_ALL_REPLICAS": 0x1,
    "SA_CKPT_WR_ACTIVE_REPLICA": 0x2,
    "SA_CKPT_WR_ACTIVE_REPLICA_WEAK": 0x4,
    "SA_CKPT_CHECKPOINT_COLLOCATED": 0x8,
    "SA_CKPT_CHECKPOINT_READ": 0x1,
    "SA_CKPT_CHECKPOINT_WRITE": 0x2,
    "SA_CKPT_CHECKPOINT_CREATE": 0x4,
    "SA_CKPT_DEFAULT_SECTION_ID": b"",
    "SA_CKPT_GENERATED_SECTION_ID": b"",
    "SA_CKPT_SECTION_VALID": 1,
    "SA_CKPT_SECTION_CORRUPTED": 2,
    "SA_CKPT_SECTIONS_FOREVER": 1,
    "SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME": 2,
    "SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME": 3,
    "SA_CKPT_SECTIONS_CORRUPTED": 4,
    "SA_CKPT_SECTIONS_ANY": 5,
    "SA_DISPATCH_ONE": 1,
    "SA_DISPATCH_ALL": 2,
    "SA_DISPATCH_BLOCKING": 3,
    "SA_MAX_NAME_LENGTH": 256,
}

KINDS = {
    "HELLO": 1,
    "WELCOME": 2,
    "PROOF": 3,
    "REFUSED": 4,
    "TAKEN": 5,
    "ATTACH": 10,
    "DETACH": 11,
    "OPEN": 12,
    "CLOSE": 13,
    "UNLINK": 14,
    "RETENTION_SET": 15,
    "ACTIVE_SET": 16,
    "STATUS": 17,
    "UPDATE": 18,
    "READ": 19,
    "ITERATE": 20,
    "SYNCHRONIZE": 21,
    "DESCRIBE": 22,
    "PING": 23,
    "OPERATE": 24,
    "TRACK": 25,
    "LEADER": 26,
    "LEADER_TRACK": 27,
    "ANSWER": 30,
    "HEARTBEAT": 40,
    "FORWARD": 50,
    "FORWARD_ANSWER": 51,
    "REPLICATE": 52,
    "ACK": 53,
    "COMMIT": 54,
    "QUERY": 55,
    "QUERIED": 56,
    "JOIN": 57,
    "CHUNK": 58,
    "CHUNK_ACK": 59,
    "JOINED": 60,
    "ASK": 61,
    "WITHDRAW": 62,
    "FORWARD_REFUSED": 63,
    "PREPARE": 70,
    "PROMISE": 71,
    "ACCEPT": 72,
    "ACCEPTED": 73,
    "COLLECT": 74,
    "COLLECTED": 75,
    "INSTALL": 76,
    "DECIDED": 77,
    "STOP": 78,
    "FAULTS": 79,
    "DIRECTORY": 80,
    "DIRECTORY_ACK": 81,
    "NODES": 82,
}

OPS = {
    "CREATE": 1,
    "DELETE": 2,
    "OVERWRITE": 3,
    "WRITE": 4,
    "EXPIRATION_SET": 5,
    "PUT": 6,
    "PATCH": 7,
    "REMOVE": 8,
    "PIECE": 9,
    "REQUIRE": 10,
    "LEAD": 11,
    "RESIGN": 12,
    "REVOKE": 13,
    "TOKEN": 14,
    "LEADERSHIP": 15,
    "RESIZE": 16,
    "EXPIRE_AFTER": 17,
}

LIMITS = {
    "NAME_BYTES_MAX": 2_048,
    "SECTION_ID_BYTES_MAX": 65_535,
    "SECTIONS_MAX": 4_294_967_295,
    "SECTION_BYTES_MAX": 67_108_864,
    "SIZE_MAX": 9_223_372_036_854_775_807,
    "CALL_BYTES_MAX": 67_174_399,
    "UPDATE_BODY_BYTES_MAX": 75_563_007,
    "BUILT_BYTES_MAX": 67_108_864,
    "OPS_PER_UPDATE_MAX": 10_000,
    "FRAME_BYTES_MAX": 83_951_615,
    "FIRST_FRAME_BYTES_MAX": 4_096,
    "DATAGRAM_BYTES_MAX": 60_000,
    "CLUSTER_NAME_BYTES_MAX": 255,
    "NODE_ID_BYTES_MAX": 64,
    "PAGE_BYTES_MAX": 1_048_576,
    "VERSION_BYTES": 24,
    "WITHDRAWN_MAX": 400,
    "REFUSAL_CHARS_MAX": 1_000,
}


def test_return_codes_have_the_sa_forums_numbers() -> None:
    assert {code.name.removeprefix("SA_AIS_"): code.value for code in SaAisErrorT} == CODES


def test_plain_codes_are_those_of_the_enumeration() -> None:
    plain = {name: value for name, value in vars(codes).items() if name.isupper() and type(value) is int}
    assert plain
    for name, value in plain.items():
        assert value == CODES["OK" if name == "OK" else f"ERR_{name}"], name


def test_a_code_has_a_name_and_any_other_number_a_name_too() -> None:
    assert code_name(6) == "SA_AIS_ERR_TRY_AGAIN"
    assert [code_name(number) for number in (-1, 0, 41)] == ["UNKNOWN_ERROR_CODE"] * 3


@pytest.mark.parametrize(("name", "value"), CONSTANTS.items())
def test_a_constant_has_the_sa_forums_number(name: str, value: Any) -> None:
    assert getattr(constants, name) == value


def test_no_constant_is_missing_here() -> None:
    assert {name for name in vars(constants) if name.startswith("SA_")} == set(CONSTANTS)


def test_kinds_of_frames_keep_their_numbers() -> None:
    assert kind_numbers() == KINDS


def test_section_operations_keep_their_numbers() -> None:
    assert op_numbers() == OPS


@pytest.mark.parametrize(("name", "value"), LIMITS.items())
def test_a_limit_is_what_the_document_says(name: str, value: int) -> None:
    assert getattr(limits, name) == value


def test_routes_keep_their_layout() -> None:
    assert FORWARD_ROUTE.pack(1, 2, 3, 4).hex() == "01" + "".join(f"{n:016x}" for n in (2, 3, 4))
    packed = REPLICATE_ROUTE.pack(1, 2, 3, -4, 5, 6)
    assert packed.hex() == "".join(f"{n % 2**64:016x}" for n in (1, 2, 3, -4, 5, 6))
