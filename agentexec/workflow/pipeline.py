"""Pipelines: tasks made of steps, each of which is recorded when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar
from uuid import UUID

from agentexec.activity.changes.reports import update
from agentexec.client.enqueue import Context, enqueue, enqueue_sync
from agentexec.errors import UsageError
from agentexec.journal.facts import digest
from agentexec.journal.recorder import Scope, current_scope
from agentexec.journal.steps import StepCall, run_step
from agentexec.registry import validate_context
from agentexec.runtime import RUNTIME
from agentexec.task import Priority, Task, TaskDefinition, new_agent_id
from agentexec.workflow.pipeline_types import Step, check_step_types, parse_step, step_arguments

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

F = TypeVar("F", bound=Callable[..., Any])

STEP_MARK = "_agentexec_step"


class TaskPool(Protocol):
    """What a pipeline needs of a pool."""

    def add_task(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        retries: int | None = None,
        timeout: float | None = None,
    ) -> TaskDefinition: ...


class PipelineBase:
    """Base of a pipeline's class; steps are its methods. An instance lives for one attempt."""

    _pipeline: ClassVar[Pipeline | None] = None

    agent_id: UUID
    """The task's, for runners: `ax.OpenAIRunner(self.agent_id)`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_pipeline" not in cls.__dict__ and cls._pipeline is not None:
            cls._pipeline._define(cls)


class Pipeline:
    """Steps that follow each other, as one task of a pool.

        pipeline = ax.Pipeline(pool)

        class Research(pipeline.Base):
            @pipeline.step(0, "gathering data")
            async def gather(self, context: Company) -> tuple[Brand, Market]: ...

            @pipeline.step(1, "analysis")
            async def analyze(self, brand: Brand, market: Market) -> Report: ...

    A step's output is recorded when it is done: after a crash the pipeline goes on at the step that was under way, which
    runs again from its top. Tasks that it has enqueued are found again. What steps give to each other are pydantic
    models, one or a tuple of several.

    `name`: the task's; the class's name if there is none. `retries`, `timeout`: as for `pool.task`; a retry goes on at
    the step that failed.
    """

    Base: Any
    """The class to derive the pipeline's class from."""

    def __init__(
        self,
        pool: TaskPool,
        name: str | None = None,
        *,
        retries: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._pool = pool
        self._name = name
        self._retries = retries
        self._timeout = timeout
        self._class: type[PipelineBase] | None = None
        self._task: TaskDefinition | None = None
        self._steps: list[Step] = []
        self.Base = type("PipelineBase", (PipelineBase,), {"_pipeline": self})

    @property
    def name(self) -> str:
        """The name of the pipeline's task. Raises UsageError before its class is defined."""
        return self._name or self._defined().__name__

    def step(self, order: int, description: str | None = None) -> Callable[[F], F]:
        """Make a method a step. Steps run in the order of their numbers, which may have gaps.

        `description` is shown while the step runs, as "Step 2 of 3: analysis"; the method's name if there is none.
        """

        def mark(method: F) -> F:
            setattr(method, STEP_MARK, (order, description))
            return method

        return mark

    async def enqueue(
        self,
        context: Context = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        priority: Priority = Priority.LOW,
        session: Session | AsyncSession | None = None,
        delay: float | timedelta | None = None,
        eta: datetime | None = None,
        idempotency_key: str | None = None,
        queue_name: str | None = None,
        detached: bool = False,
    ) -> Task:
        """Enqueue the pipeline's task; arguments, result and errors are those of `ax.enqueue`."""
        return await enqueue(
            self.name,
            context,
            metadata=metadata,
            priority=priority,
            session=session,
            delay=delay,
            eta=eta,
            idempotency_key=idempotency_key,
            queue_name=queue_name,
            detached=detached,
        )

    def enqueue_sync(self, context: Context = None, **options: Any) -> Task:
        """`enqueue` for code without an event loop."""
        return enqueue_sync(self.name, context, **options)

    async def run(self, context: Any = None) -> Any:
        """Run the steps here and now, and return the last one's output.

        Inside a task its steps are recorded in that task; elsewhere nothing is. Raises what a step raises, and
        ContextInvalidError.
        """
        self._defined()
        if self._task is not None and not (context is None and self._task.context_type is None):
            context = validate_context(self._task, {} if context is None else context)
        scope = current_scope()
        if scope is None:
            return await self._run(None, new_agent_id(), context, reports=False)
        await scope.recorder.open()
        # By its context: branches that run side by side come here in another order in another attempt.
        place = f"pipeline:{self.name.replace('/', '_').replace('#', '_')[:60]}:{digest(context)[:16]}"
        path = scope.claim_path(place, digest(self.name), f"the pipeline {self.name}")
        return await self._run(scope.child_scope(path), scope.recorder.lease.agent_id, context, reports=False)

    def _define(self, cls: type[PipelineBase]) -> None:
        """Called when the class is: check it and register its task. Raises TypeError, UsageError."""
        if self._class is not None:
            raise UsageError(
                f"The pipeline of {self._class.__name__} has its class; give {cls.__name__} an ax.Pipeline of its own."
            )
        marked: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            marked.update((name, value) for name, value in vars(base).items() if hasattr(value, STEP_MARK))
        steps = [parse_step(method, *getattr(method, STEP_MARK)) for method in marked.values()]
        steps.sort(key=lambda step: step.order)
        check_step_types(self._name or cls.__name__, steps)
        self._class, self._steps = cls, steps

        async def handler(agent_id: UUID, context: Any) -> Any:
            scope = current_scope()
            if scope is not None:
                scope.recorder.is_step_based = True
                await scope.recorder.open()
            return await self._run(scope, agent_id, context, reports=True)

        first, last = steps[0], steps[-1]
        handler.__annotations__ = {
            "context": first.inputs[0] if first.inputs else None,
            "return": last.return_type,
        }
        handler.__name__ = handler.__qualname__ = self.name
        self._task = self._pool.add_task(self.name, handler, retries=self._retries, timeout=self._timeout)

    def _defined(self) -> type[PipelineBase]:
        if self._class is None:
            raise UsageError("The pipeline has no steps yet: define a class with pipeline.Base as its base.")
        return self._class

    async def _run(self, scope: Scope | None, agent_id: UUID, context: Any, *, reports: bool) -> Any:
        instance = self._defined()()
        instance.agent_id = agent_id
        given: tuple[Any, ...] = (context,) if self._steps[0].inputs else ()
        value: Any = None
        before: Step | None = None
        for number, step in enumerate(self._steps, 1):
            if before is not None:
                given = step_arguments(before, step, value)
            call = PipelineStep(self, instance, step, number, given, reports=reports)
            value, before = await run_step(scope, call, "idempotent"), step
        return value

    @property
    def length(self) -> int:
        """The number of steps."""
        return len(self._steps)


class PipelineStep(StepCall):
    """A step as the journal knows it: by its method's name alone, since its input is the recorded output of another."""

    def __init__(
        self,
        pipeline: Pipeline,
        instance: PipelineBase,
        step: Step,
        number: int,
        arguments: tuple[Any, ...],
        *,
        reports: bool,
    ) -> None:
        method = getattr(instance, step.name)
        super().__init__(step.name, method, arguments, records_intent=False)
        self.arguments = digest(step.name)
        self._agent_id = instance.agent_id
        self._step = step
        self._number = number
        self._of = pipeline.length
        self._reports = reports

    async def call_function(self) -> Any:
        if self._reports:
            self._report()
        return self._step.validate_output(await super().call_function())

    def encode(self, answer: Any) -> Any:
        return self._step.dump(answer.value)

    def decode(self, value: Any) -> Any:
        return self._step.load(value)

    def _report(self) -> None:
        writer = RUNTIME.progress_writer
        if writer is not None and writer.holds(self._agent_id):
            message = f"Step {self._number} of {self._of}: {self._step.description}"
            update(self._agent_id, message, 100 * (self._number - 1) // self._of)
