"""Values as JSON text: they come back as they are, or they are refused with the place named."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    SecretStr,
    SerializeAsAny,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from agentexec.errors import UsageError
from agentexec.values.codec import Codec

T = TypeVar("T")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    user_name: str = "nobody"
    home_town: str | None = None


class Aliased(BaseModel):
    user: str = Field("nobody", alias="userName")


class ReadUnderAlias(BaseModel):
    user: str = Field("nobody", validation_alias="userName")
    first: int = Field(0, validation_alias=AliasPath("numbers", 0))
    either: int = Field(0, validation_alias=AliasChoices("one", "two"))


class WrittenUnderAlias(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user: str = Field("nobody", serialization_alias="userName")


class Swapped(BaseModel):
    a: int = Field(0, alias="b")
    b: int = Field(0, alias="a")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int

    @computed_field
    @property
    def area(self) -> int:
        return self.width**2


class WithJson(BaseModel):
    data: Json[list[int]]


class Kind(enum.Enum):
    CAT = "cat"
    DOG = 2


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Box(BaseModel, Generic[T]):
    item: T


class Tags(RootModel[frozenset[str]]):
    pass


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    at: datetime
    pairs: tuple[int, str]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Encoded(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Infinite(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    value: float


class Movie(TypedDict, total=False):
    title: str
    year: int


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Node:
    name: str
    children: list[Node] = dataclasses.field(default_factory=list)
    when: datetime | None = None


@dataclasses.dataclass
class Money:
    """A class whose comparison says little about its fields."""

    amount: Decimal = dataclasses.field(compare=False)


class Pet(BaseModel):
    name: str


class Puppy(Pet):
    age: int = 0


class Renamed(Pet):
    pass


class Owner(BaseModel):
    pet: Pet


class OpenOwner(BaseModel):
    pet: SerializeAsAny[Pet]


class Owners(BaseModel):
    by_name: dict[str, list[Pet | None]]


class Excluded(BaseModel):
    shown: int = 1
    hidden: int = Field(0, exclude=True)
    made: object = Field(default_factory=object, exclude=True)


class SameById(BaseModel):
    """A model whose own comparison does not see that a field is lost."""

    id: int
    note: str = Field("", exclude=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameById) and other.id == self.id


class Rounded(BaseModel):
    price: float

    @field_serializer("price")
    def _round(self, price: float) -> float:
        return round(price)


class Hashed(BaseModel):
    password: str

    @field_validator("password")
    @classmethod
    def _hash(cls, value: str) -> str:
        return f"hash({value})"


class Loose(BaseModel):
    anything: Any = None


class Keeper(BaseModel):
    secret: SecretStr


class Numbers(BaseModel):
    ratio: float | None = None
    data: bytes = b""
    text: str = ""
    count: int = 0


class Private(BaseModel):
    name: str
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


def came_back(hint: Any, value: Any) -> Any:
    codec = Codec(hint)
    return codec.load(codec.dump(value, "The value"))


IN_THE_REPEATED_HOUR = datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Camel, Camel(userName="Ada", homeTown="London")),
        (Camel | None, Camel(userName="Ada")),
        (list[Camel], [Camel(userName="Ada")]),
        (Aliased, Aliased(userName="Ada")),
        (ReadUnderAlias, ReadUnderAlias(userName="Ada", numbers=[7], two=3)),
        (WrittenUnderAlias, WrittenUnderAlias(user="Ada")),
        (Swapped, Swapped(a=1, b=2)),
        (Computed, Computed(width=3)),
        (dict[str, Computed], {"a": Computed(width=3)}),
        (WithJson, WithJson(data="[1, 2]")),
        (Annotated[Cat | Dog, Field(discriminator="kind")], Dog()),
        (list[Cat | Dog], [Dog(), Cat()]),
        (Box[Camel], Box[Camel](item=Camel(userName="Ada"))),
        (Tags, Tags({"b", "a"})),
        (Strict, Strict(at=datetime(2026, 1, 1, tzinfo=UTC), pairs=(1, "a"))),
        (Open, Open(name="a", further={"b": [1, None]})),
        (Encoded, Encoded(data=b"\xff\xfe")),
        (Infinite, Infinite(value=math.inf)),
        (Movie, {"title": "Metropolis"}),
        (Point, Point(1, 2.5)),
        (Node, Node("a", [Node("b", when=datetime.now(UTC))])),
        (Kind, Kind.DOG),
        (Owner, Owner(pet=Pet(name="Rex"))),
        (Excluded, Excluded(shown=3)),
        (set[int], {3, 1, 2}),
        (frozenset[tuple[int, str]], frozenset({(1, "a")})),
        (dict[int, set[str]], {1: {"a"}}),
        (dict[uuid.UUID, Decimal], {uuid.uuid4(): Decimal("1.10")}),
        (collections.deque[int], collections.deque([1, 2])),
        (tuple[int, ...], (1, 2)),
        (datetime, datetime.now(timezone(timedelta(hours=5, minutes=30)))),
        (datetime, IN_THE_REPEATED_HOUR),
        (date | time | timedelta, timedelta(days=-1, microseconds=3)),
        (Path, Path("/tmp")),
        (AnyUrl, AnyUrl("https://example.org")),
        (bytes, b"text"),
        (str, "NUL \x00, \u2028, \U0001f600 and \u00e9"),
        (int, 10**4000),
        (Literal["a", 3], 3),
        (Optional[int], None),  # noqa: UP045 - the older spelling is to work too
        (Private, Private(name="a")),
        (Loose, Loose(anything={"a": [1, 2.5, None, True, "x"]})),
        (Any, {"nested": [{"a": 1}]}),
    ],
)
def test_a_value_comes_back_as_it_is(hint: Any, value: Any) -> None:
    found = came_back(hint, value)
    assert type(found) is type(value)
    if isinstance(value, datetime):
        assert found.astimezone(UTC) == value.astimezone(UTC)
    elif not isinstance(value, Excluded):
        assert found == value


@pytest.mark.parametrize(
    ("hint", "value", "complaint"),
    [
        (Owner, Owner(pet=Puppy(name="Rex", age=3)), r"pet\.age: Puppy has it, but a Pet"),
        (Owner, Owner(pet=Renamed(name="Rex")), "pet: a Renamed comes back as a Pet"),
        (OpenOwner, OpenOwner(pet=Puppy(name="Rex", age=3)), r"pet\.age: Puppy has it"),
        (Owners, Owners(by_name={"a": [None, Puppy(name="Rex")]}), r"by_name\.a\.1\.age"),
        (list[Pet], [Pet(name="a"), Puppy(name="b")], r"1\.age"),
        (Pet, Puppy(name="Rex", age=3), "age: Puppy has it"),
        (BaseModel, Pet(name="Rex"), "name: Pet has it, but a BaseModel"),
        (Excluded, Excluded(hidden=3), "hidden: "),
        (SameById, SameById(id=1, note="lost"), "note: "),
        (list[SameById], [SameById(id=1, note="lost")], r"0\.note: "),
        (Rounded, Rounded(price=1.5), "price: it comes back with another value"),
        (Hashed, Hashed(password="abc"), "password: it comes back with another value"),
        (Numbers, Numbers(ratio=math.nan), "ratio: "),
        (float, math.inf, "Input should be a valid number"),
        (list[float | None], [1.0, -math.inf], "1: "),
        (Loose, Loose(anything=[math.nan]), r"anything\.0: JSON has no NaN"),
        (Any, {"a": math.nan}, "a: JSON has no NaN"),
        (Numbers, Numbers(data=b"\xff"), "data: .*utf-8"),
        (dict[str, bytes], {"k": b"\xff"}, "k: .*utf-8"),
        (Numbers, Numbers(text="\ud800"), "text: .*surrogates"),
        (Any, {"a": ["\udc00"]}, r"a\.0: .*surrogates"),
        (Numbers, Numbers(count=10**4999), "number out of range"),
        (Any, [10**4999], "number out of range"),
        (Any, {1: "a", "1": "b"}, "1"),
        (Any, {"file": open(__file__)}, "file: "),  # noqa: PTH123, SIM115
        (Any, {"data": b"text"}, "data: a bytes comes back as a str"),
        (Any, {"thing": object()}, "thing: Unable to serialize unknown type"),
        (Loose, Loose(anything={"lambda": len}), r"anything\.lambda: Unable"),
        (Keeper, Keeper(secret=SecretStr("hunter2")), "holds a secret in secret"),
        (Any, {"k": [SecretStr("hunter2")]}, r"holds a secret in k\.0"),
        (Loose, Loose(anything=Keeper(secret=SecretStr("hunter2"))), r"secret in anything\.secret"),
        (Numbers, Numbers.model_construct(count="many"), "count: "),
        (Movie, {"title": "a", "rating": 3}, "rating: it is lost"),
        (int, "many", "does not fit its type int"),
        (str, None, "does not fit its type str"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused_with_its_place(
    hint: Any, value: Any, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        Codec(hint).dump(value, "The value")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_that_contains_itself_or_is_too_deep_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (ring, deep, Loose.model_construct(anything=ring)):
        with pytest.raises(UsageError):
            Codec().dump(value, "The value")


def test_a_value_of_an_open_type_comes_back_as_json_data() -> None:
    value = {"when": datetime(2026, 1, 1, tzinfo=UTC), "pair": (1, 2), "set": {1}, "model": Camel(), 1: "a"}
    found = came_back(Any, value)
    assert found["when"].startswith("2026-01-01T00:00:00")
    assert found["pair"] == [1, 2] and found["set"] == [1] and found["1"] == "a"
    assert isinstance(found["model"], dict)


def test_a_value_that_fits_after_conversion_is_converted() -> None:
    assert came_back(Camel, {"userName": "Ada"}) == Camel(userName="Ada")
    assert came_back(int, "5") == 5
    assert came_back(Pet, Renamed(name="Rex")) == Pet(name="Rex")


def test_a_text_written_by_an_earlier_release_is_still_read() -> None:
    assert Codec(Aliased).load('{"user": "Ada"}') == Aliased(userName="Ada")
    assert Codec(Aliased).load('{"userName": "Ada"}') == Aliased(userName="Ada")
    assert Codec(ReadUnderAlias).load('{"user": "Ada", "first": 3}').first == 3


def test_what_came_back_in_earlier_releases_keeps_its_text() -> None:
    class Shape(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        width: int = Field(alias="w")

        @computed_field
        @property
        def area(self) -> int:
            return self.width**2

    shape = Shape(width=3)
    assert Codec(Shape).dump(shape, "The value") == shape.model_dump_json()


def test_a_type_that_pydantic_cannot_handle_is_refused() -> None:
    class Plain: ...

    with pytest.raises(UsageError, match="pydantic cannot handle it"):
        Codec(Plain)
