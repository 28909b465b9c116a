"""Rules for the class of a pipeline: every fault is named when the class is defined."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

import agentexec as ax
from agentexec.registry import Registry


class Company(BaseModel):
    name: str


class Brand(BaseModel):
    name: str
    score: int = 0


class NewBrand(Brand):
    year: int = 2026


class Market(BaseModel):
    size: int


class Report(BaseModel):
    text: str


class Pool:
    """The part of a pool that a pipeline uses, without a database."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.add_task = self.registry.add


@pytest.fixture
def pipeline() -> ax.Pipeline:
    return ax.Pipeline(Pool())


def test_several_outputs_are_the_next_steps_inputs(pipeline: ax.Pipeline) -> None:
    class Research(pipeline.Base):
        @pipeline.step(1, "analysis")
        async def analyze(self, brand: Brand, market: Market) -> Report: ...

        @pipeline.step(0, "gathering")
        def gather(self, context: Company) -> tuple[NewBrand, Market]: ...

    definition = pipeline._pool.registry.get("Research")  # type: ignore[attr-defined]
    assert pipeline.name == definition.name == "Research"
    assert definition.context.hint is Company
    assert definition.result.load('{"text": "x"}') == Report(text="x")


def test_a_pipeline_may_have_its_own_name() -> None:
    pipeline = ax.Pipeline(Pool(), name="research")

    class Anything(pipeline.Base):
        @pipeline.step(0)
        async def only(self, context: Company) -> Report: ...

    assert pipeline.name == "research"


def test_a_missing_annotation_fits_every_type(pipeline: ax.Pipeline) -> None:
    class Loose(pipeline.Base):
        @pipeline.step(0, "description")
        async def step_one(self, context): ...  # type: ignore[no-untyped-def]

        @pipeline.step(1)
        async def step_two(self, a, b: Market): ...  # type: ignore[no-untyped-def]


def test_a_union_fits_if_each_of_its_members_fits(pipeline: ax.Pipeline) -> None:
    class Choice(pipeline.Base):
        @pipeline.step(0)
        async def one(self, context: Company) -> Brand | Market: ...

        @pipeline.step(1)
        async def two(self, found: Brand | Market | Report) -> None: ...


async def nothing(self: Any) -> Report: ...
async def plain(self: Any, context: str) -> Report: ...
async def gives_text(self: Any, context: Company) -> str: ...
async def gives_many(self: Any, context: Company) -> tuple[Brand, ...]: ...
async def gives_list(self: Any, context: Company) -> list[Brand]: ...
async def gives_two(self: Any, context: Company) -> tuple[Brand, Market]: ...
async def gives_one(self: Any, context: Company) -> Brand: ...
async def gives_none(self: Any, context: Company) -> None: ...
async def takes_one(self: Any, market: Market) -> Report: ...
async def takes_new(self: Any, brand: NewBrand) -> Report: ...
async def takes_two(self: Any, brand: Brand, market: Market) -> Report: ...
async def takes_key(self: Any, *, brand: Brand) -> Report: ...
async def lost(self: Any, brand: Nowhere) -> Report: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([], "Pipeline Faulty has no steps; mark its methods with @pipeline.step"),
        ([plain], "Step plain takes context: str, but steps take pydantic models"),
        ([gives_text, takes_one], "Step gives_text returns str, but steps return pydantic models"),
        ([gives_list], r"Step gives_list returns list\[.*Brand\], but steps return pydantic models"),
        ([gives_many], "Step gives_many returns .*annotate how many models it returns"),
        (
            [gives_two, takes_one],
            r"Step takes_one of pipeline Faulty takes 1 \(Market\), but step gives_two returns 2 \(Brand, Market\)",
        ),
        ([gives_one, takes_two], r"takes 2 \(Brand, Market\), but step gives_one returns 1 \(Brand\)"),
        ([gives_none, takes_one], r"takes 1 \(Market\), but step gives_none returns nothing"),
        (
            [gives_one, takes_one],
            "Step takes_one of pipeline Faulty takes Market, but step gives_one returns Brand",
        ),
        ([gives_one, takes_new], "takes NewBrand, but step gives_one returns Brand"),
        (
            [takes_two],
            "Step takes_two is the first of pipeline Faulty and takes one input, the context; it has 2",
        ),
        ([gives_one, takes_key], "Step takes_key may take plain parameters only, not .*brand"),
        ([gives_one, lost], "Step lost annotates its brand with Nowhere, which cannot be resolved"),
    ],
)
def test_steps_whose_types_do_not_fit_are_refused(
    pipeline: ax.Pipeline, steps: list[Any], complaint: str
) -> None:
    marked = {method.__name__: pipeline.step(order)(method) for order, method in enumerate(steps)}
    with pytest.raises(TypeError, match=complaint):
        type("Faulty", (pipeline.Base,), marked)


def test_two_steps_with_the_same_order_are_refused(pipeline: ax.Pipeline) -> None:
    with pytest.raises(TypeError, match="Steps one and two of pipeline Twice both have the order 3"):

        class Twice(pipeline.Base):
            @pipeline.step(3)
            async def one(self, context: Company) -> Brand: ...

            @pipeline.step(3)
            async def two(self, brand: Brand) -> Report: ...


def test_a_pipeline_has_one_class(pipeline: ax.Pipeline) -> None:
    class First(pipeline.Base):
        @pipeline.step(0)
        async def one(self, context: Company) -> Brand: ...

    with pytest.raises(
        ax.UsageError, match=r"The pipeline of First has its class; give Second an ax.Pipeline"
    ):

        class Second(pipeline.Base):
            @pipeline.step(0)
            async def one(self, context: Company) -> Brand: ...


async def test_a_pipeline_without_a_class_cannot_be_used(pipeline: ax.Pipeline) -> None:
    with pytest.raises(ax.UsageError, match="has no steps yet"):
        await pipeline.enqueue(Company(name="Acme"))
    with pytest.raises(ax.UsageError, match="has no steps yet"):
        await pipeline.run(Company(name="Acme"))


async def test_run_returns_the_output_of_the_last_step(pipeline: ax.Pipeline) -> None:
    ids: list[UUID] = []

    class Research(pipeline.Base):
        @pipeline.step(10, "gathering")
        async def gather(self, context: Company) -> tuple[Brand, Market]:
            ids.append(self.agent_id)
            return NewBrand(name=context.name), Market(size=7)

        @pipeline.step(20)
        def analyze(self, brand: Brand, market: Market) -> Report:
            ids.append(self.agent_id)
            return Report(text=f"{brand.name}: {market.size}")

    assert await pipeline.run(Company(name="Acme")) == Report(text="Acme: 7")
    assert ids[0] == ids[1]


async def test_a_step_that_returns_another_type_than_annotated_fails(pipeline: ax.Pipeline) -> None:
    class Liar(pipeline.Base):
        @pipeline.step(0)
        async def one(self, context: Company) -> tuple[Brand, Market]:
            return Brand(name="x"), Brand(name="y")  # type: ignore[return-value]

    with pytest.raises(
        TypeError,
        match=r"Step one returned Brand, Brand, but its annotation says tuple",
    ):
        await pipeline.run(Company(name="Acme"))


async def test_the_list_of_asyncio_gather_becomes_a_tuple(pipeline: ax.Pipeline) -> None:
    async def brand(context: Company) -> Brand:
        return Brand(name=context.name)

    async def market(context: Company) -> Market:
        return Market(size=7)

    class Research(pipeline.Base):
        @pipeline.step(0, "parallel research")
        async def gather_data(self, context: Company) -> tuple[Brand, Market]:
            return await asyncio.gather(brand(context), market(context))  # type: ignore[return-value]

        @pipeline.step(1, "analysis")
        async def analyze(self, brand: Brand, market: Market) -> Report:
            return Report(text=f"{brand.name}: {market.size}")

    assert await pipeline.run(Company(name="Acme")) == Report(text="Acme: 7")


async def test_run_takes_a_context_as_enqueue_does(pipeline: ax.Pipeline) -> None:
    class Research(pipeline.Base):
        @pipeline.step(0)
        async def only(self, context: Company) -> Report:
            return Report(text=context.name)

    assert await pipeline.run({"name": "Acme"}) == Report(text="Acme")
    with pytest.raises(ax.ContextInvalidError, match="The context of task Research is not valid: name"):
        await pipeline.run({"company": "Acme"})


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (Brand(name="x"), r"Step two takes 2 \(Brand, Market\), but step one returned 1"),
        (
            [Brand(name="x"), Brand(name="y")],
            "Step two takes Market, which the output of step one does not fit",
        ),
    ],
)
async def test_an_output_without_annotation_is_checked_when_it_is_passed_on(
    pipeline: ax.Pipeline, output: Any, complaint: str
) -> None:
    class Loose(pipeline.Base):
        @pipeline.step(0)
        async def one(self, context):  # type: ignore[no-untyped-def]
            return output

        @pipeline.step(1)
        async def two(self, brand: Brand, market: Market) -> None: ...

    with pytest.raises(TypeError, match=complaint):
        await pipeline.run({})
