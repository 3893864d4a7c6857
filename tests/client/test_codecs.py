"""What a codec writes it reads again; it refuses the rest before anything is stored."""

from typing import Any

import pytest
from pydantic import BaseModel, Field, computed_field

from ckpt_client import codecs


class Order(BaseModel):
    count: int
    price: float = 1.0


class Required(BaseModel):
    count: int = Field(validation_alias="in", serialization_alias="out")


class Computed(BaseModel, extra="forbid"):
    count: int = 1

    @computed_field
    def twice(self) -> int:
        return 2 * self.count


def changed() -> Order:
    order = Order(count=1)
    order.count = "many"  # type: ignore[assignment]
    return order


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize(
    ("model", "value"),
    [
        (Order, changed()),
        (Order, Order(count=1, price=float("nan"))),
        (Required, Required(**{"in": 1})),
        (Computed, Computed()),
    ],
)
def test_a_model_that_could_not_be_read_again_is_refused(model: Any, value: Any) -> None:
    """It was stored, and every read after that failed."""
    with pytest.raises(ValueError, match="validation error"):
        codecs.pydantic(model).encode(value)


def test_a_model_that_can_be_read_is_written() -> None:
    codec = codecs.pydantic(Order)
    assert codec.decode(codec.encode(Order(count=2))) == Order(count=2)


@pytest.mark.parametrize("value", [{(1, 2): 3}, {"deep": [{(b"a", ("b", None)): {(): 1}}]}, {1: 1, None: 2}])
def test_msgpack_reads_every_key_that_it_writes(value: Any) -> None:
    """A tuple became a list, which is no key: the value was stored, and every read after that failed."""
    assert codecs.msgpack.decode(codecs.msgpack.encode(value)) == value


def test_msgpack_refuses_a_key_that_no_dict_has() -> None:
    with pytest.raises(TypeError):
        codecs.msgpack.decode(b"\x81\x91\x80\x01")  # {[{}]: 1}
