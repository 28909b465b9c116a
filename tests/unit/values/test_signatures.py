"""Registration of handlers: each callable works, or is refused in one sentence that says what to write."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

import agentexec as ax
from agentexec.errors import ContextInvalidError, UsageError
from agentexec.registry import Registry, load_context, validate_context
from agentexec.task import TaskDefinition

if TYPE_CHECKING:
    from decimal import Decimal
    from uuid import UUID


class Company(BaseModel):
    name: str


@dataclass
class Order:
    number: int


async def handler(agent_id: UUID, context: Company) -> str:
    return context.name


async def wants_more(agent_id: UUID, context: Company, extra: int) -> None: ...


def run_to_end(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that makes an async function a plain one."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return wrapper


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator whose wrapper is a plain function that returns a coroutine."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def with_database(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that passes a further argument."""

    @functools.wraps(function)
    async def wrapper(agent_id: UUID, context: Company) -> Any:
        return await function(agent_id, context, extra=3)

    return wrapper


def adding(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that passes everything on, and more."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs, extra=3)

    return wrapper


def without_id(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that passes less on."""

    @functools.wraps(function)
    async def wrapper(agent_id: UUID, context: Company) -> Any:
        return await function(context)

    return wrapper


async def only_context(context: Company) -> str:
    return context.name


class Service:
    async def handle(self, agent_id: UUID, context: Company) -> str:
        return context.name

    @staticmethod
    async def static(agent_id: UUID, context: Company) -> str:
        return context.name

    @classmethod
    def of_class(cls, agent_id: UUID, context: Company) -> str:
        return context.name


class Callable_:  # noqa: N801 - stands for an object that is called
    async def __call__(self, agent_id: UUID, context: Company) -> str:
        return context.name


def returns_awaitable(agent_id: UUID, context: Company) -> Awaitable[str]:
    return handler(agent_id, context)


WORKING = {
    "an async function": handler,
    "a plain wrapper of an async function": run_to_end(handler),
    "a wrapper that returns the coroutine": passed_on(handler),
    "a wrapper that adds an argument to a partial": with_database(wants_more),
    "a wrapper that passes all on and adds an argument to a partial": adding(wants_more),
    "a wrapper that passes less on": without_id(only_context),
    "a bound method": Service().handle,
    "a static method": Service.static,
    "a static method inside its class": Service.__dict__["static"],
    "a class method": Service.of_class,
    "an object with __call__": Callable_(),
    "a partial": functools.partial(wants_more, extra=3),
    "a partial of a partial": functools.partial(functools.partial(wants_more), extra=3),
    "a partial of a method": functools.partial(Service().handle),
    "a lambda": lambda agent_id, context: context["name"],
    "a function that returns a coroutine": returns_awaitable,
}


async def positional(agent_id: UUID, context: Company, /) -> None: ...


def generator(agent_id: UUID, context: Company) -> Generator[int]:
    yield 1


async def async_generator(agent_id: UUID, context: Company) -> AsyncGenerator[int]:
    yield 1


REFUSED = {
    "lacks the parameter context": lambda agent_id: None,
    "lacks the parameter agent_id": lambda *agent_id, context: None,
    "requires the parameter extra": wants_more,
    "requires the parameter self, .* bound method": Service.handle,
    "takes agent_id by position only": positional,
    "is a generator": generator,
    "is a generator;": async_generator,
    "is a generator; return": functools.partial(async_generator),
    "is the class Service": Service,
    "is a class method in the making": Service.__dict__["of_class"],
    "is a str, which cannot be called": "handler",
    "is a NoneType": None,
    "lacks the parameter agent_id; write": print,
}


@pytest.mark.parametrize("kind", WORKING)
def test_every_usual_kind_of_callable_can_be_a_handler_and_runs(kind: str) -> None:
    pool = ax.Pool(database_url="sqlite://")
    pool.add_task("greet", WORKING[kind])
    with ax.testing.harness(pool) as harness:
        record = harness.run("greet", {"name": "Ada"})
    assert record.status is ax.Status.COMPLETE, record.error
    assert record.result == (None if "partial" in kind and "method" not in kind else "Ada")


@pytest.mark.parametrize("complaint", REFUSED)
def test_a_callable_that_would_fail_when_run_is_refused_when_registered(complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        Registry().add("greet", REFUSED[complaint])  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


async def test_a_coroutine_is_refused() -> None:
    with pytest.raises(UsageError, match="without calling it"):
        Registry().add("greet", handler(None, None))  # type: ignore[arg-type]


def test_a_task_may_be_registered_without_parentheses() -> None:
    pool = ax.Pool(database_url="sqlite://")

    @pool.task
    async def greet(agent_id: UUID, context: Company) -> str:
        return context.name

    @pool.task(retries=2)
    def greet_again(agent_id: UUID, context: Company) -> str:
        return context.name

    assert pool.registry.get("greet").handler is greet
    assert pool.registry.get("greet_again").retries == 2


@pytest.mark.parametrize("nameless", [lambda agent_id, context: 1, functools.partial(handler), Callable_()])
def test_a_callable_without_a_name_needs_one(nameless: Any) -> None:
    with pytest.raises(UsageError, match="needs one of its own"):
        ax.Pool(database_url="sqlite://").task(nameless)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\x00", "\ud800", "a ", 3, b"a"])
def test_an_odd_name_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="name"):
        Registry().add(name, handler)


@pytest.mark.parametrize("name", ["greet", "mail.send/now #1", "grüße", "送信", "a b"])
def test_other_names_are_taken(name: str) -> None:
    assert Registry().add(name, handler).name == name


@pytest.mark.parametrize(
    "options",
    [{"retries": "3"}, {"retries": 1.5}, {"timeout": "3"}, {"timeout": float("nan")}],
)
def test_odd_options_are_refused(options: Any) -> None:
    with pytest.raises(UsageError, match=r"retries|timeout"):
        Registry().add("greet", handler, **options)


def test_the_same_method_may_be_registered_twice() -> None:
    registry, service = Registry(), Service()
    registry.add("greet", service.handle)
    registry.add("greet", service.handle)


def test_a_hint_that_nobody_needs_may_be_missing() -> None:
    # UUID is imported for the type checker only, and the context is still validated.
    definition = Registry().add("greet", handler)
    with pytest.raises(ContextInvalidError, match="name: Field required"):
        validate_context(definition, {})


def test_a_hint_that_cannot_be_resolved_is_refused_by_name() -> None:
    async def returns_decimal(agent_id: UUID, context: Company) -> Decimal: ...

    async def takes_decimal(agent_id: UUID, context: list[Decimal]) -> None: ...

    with pytest.raises(
        UsageError, match=r"return value with Decimal.*name 'Decimal' is not defined.*TYPE_CHECKING"
    ):
        Registry().add("greet", returns_decimal)
    with pytest.raises(UsageError, match=r"parameter context with list\[Decimal\].*'Decimal'"):
        Registry().add("greet", takes_decimal)


def test_a_type_that_json_cannot_give_is_refused_by_name() -> None:
    async def takes_service(agent_id: UUID, context: Service) -> None: ...

    async def returns_service(agent_id: UUID, context: None) -> Service: ...

    with pytest.raises(
        UsageError, match="its parameter context with Service, which cannot be read from JSON"
    ):
        Registry().add("greet", takes_service)
    with pytest.raises(UsageError, match="its return value with Service, which cannot be read from JSON"):
        Registry().add("greet", returns_service)


def test_a_local_type_is_found() -> None:
    def register() -> TaskDefinition:
        class Local(BaseModel):
            number: int

        class Inner(BaseModel):
            local: Local

        async def use(agent_id: UUID, context: Inner | None) -> Local:
            assert context is not None
            return context.local

        return Registry().add("use", use)

    definition = register()
    context = load_context(definition, '{"local": {"number": "3"}}')
    assert context.local.number == 3
    assert definition.result.hint is type(context.local)


def registered(hint: Any, result: Any = Any) -> TaskDefinition:
    async def use(agent_id: UUID, context: Any) -> Any: ...

    use.__annotations__ = {"context": hint, "return": result}
    return Registry().add("use", use)


@pytest.mark.parametrize(
    ("hint", "given", "expected"),
    [
        (Company | None, {"name": "Ada"}, Company(name="Ada")),
        (Company | None, None, None),
        (Company | Order, {"number": 3}, Order(3)),
        (Order, {"number": "3"}, Order(3)),
        (Order, Order(3), Order(3)),
        (list[Company], [{"name": "Ada"}], [Company(name="Ada")]),
        (int, "3", 3),
        (str, "3", "3"),
        (str, '{"a": 1}', '{"a": 1}'),
        (bool, True, True),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (Any, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (None, None, None),
    ],
)
def test_a_context_arrives_as_the_type_that_the_handler_names(hint: Any, given: Any, expected: Any) -> None:
    seen: list[Any] = []

    async def use(agent_id: UUID, context: Any) -> None:
        seen.append(context)

    use.__annotations__ = {"context": hint, "return": None}
    pool = ax.Pool(database_url="sqlite://")
    pool.add_task("use", use)
    with ax.testing.harness(pool) as harness:
        record = harness.run("use", given)
    assert record.status is ax.Status.COMPLETE, record.error
    assert seen == [expected] and type(seen[0]) is type(expected)


@pytest.mark.parametrize(
    ("hint", "given"), [(Company | None, {"nam": 1}), (int, "three"), (list[int], {}), (Order, 3)]
)
def test_a_context_of_another_type_is_refused_at_enqueue(hint: Any, given: Any) -> None:
    with pytest.raises(ContextInvalidError):
        validate_context(registered(hint), given)


@pytest.mark.parametrize(
    ("result", "value", "complaint"),
    [
        (str, 5, "does not fit its type str: Input should be a valid string"),
        (str, None, "does not fit its type str"),
        (None, 5, "does not fit its type"),
        (Company, {"nam": "Ada"}, "name: Field required"),
        (Any, float("nan"), "JSON has no NaN"),
        (float, float("nan"), "would not come back"),
        (bytes, b"\xff", "cannot be written as JSON"),
    ],
)
def test_a_result_is_checked_when_the_handler_ends(result: Any, value: Any, complaint: str) -> None:
    async def give(agent_id: UUID, context: Any) -> Any:
        return value

    give.__annotations__ = {"return": result}
    pool = ax.Pool(database_url="sqlite://")
    pool.add_task("give", give)
    with ax.testing.harness(pool) as harness:
        record = harness.run("give")
    assert record.status is ax.Status.ERROR
    assert complaint in (record.error or "")


class Named(BaseModel):
    later: Later | None = None


class Unnamed(BaseModel):
    never: "NeverDefined | None" = None  # type: ignore[name-defined]  # noqa: F821, UP037


class Later(BaseModel):
    number: int


def test_names_within_a_type_are_resolved_once_all_modules_are_loaded() -> None:
    registry = Registry()

    async def work(agent_id: UUID, context: Named) -> list[Named]:
        return [context]

    registry.add("work", work)
    registry.complete()


@pytest.mark.parametrize("place", ["the parameter context", "the return value"])
def test_a_name_within_a_type_that_is_never_defined_is_refused_before_any_work(place: str) -> None:
    async def takes(agent_id: UUID, context: list[Unnamed]) -> None: ...

    async def returns(agent_id: UUID, context: Company) -> list[Unnamed]:
        return []

    pool = ax.Pool(database_url="sqlite://")
    pool.add_task("work", takes if "context" in place else returns)
    expected = pytest.raises(UsageError, match=f"task work annotates {place} with .*NeverDefined")
    with expected as caught, ax.testing.harness(pool):
        pass
    assert "\n" not in str(caught.value)
