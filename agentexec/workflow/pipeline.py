"""Pipelines: tasks made of steps, each of which is recorded when it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, Unpack
from uuid import UUID

from agentexec.activity.changes.reports import update
from agentexec.client.enqueue import enqueue, enqueue_sync
from agentexec.client.new_task import Context, EnqueueOptions
from agentexec.errors import UsageError
from agentexec.journal.canonical import digest
from agentexec.journal.recorder import Scope
from agentexec.journal.scopes import current_scope
from agentexec.journal.steps import StepCall, run_step
from agentexec.registry import validate_context
from agentexec.runtime import RUNTIME
from agentexec.task import HandlerOptions, Task, TaskDefinition, new_agent_id
from agentexec.workflow.blocking import run_blocking
from agentexec.workflow.pipeline_types import Step, check_step_types, parse_step, step_arguments

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, scoped_session

F = TypeVar("F", bound=Callable[..., Any])

STEP_MARK = "_agentexec_step"


class TaskPool(Protocol):
    """The part of a pool that a pipeline uses."""

    def add_task(
        self, name: str, handler: Callable[..., Any], **options: Unpack[HandlerOptions]
    ) -> TaskDefinition:
        """Register a handler, as `Pool.add_task` does."""
        ...


class PipelineBase:
    """Base class of a pipeline's class, whose methods are the steps. An instance lives for one attempt."""

    _pipeline: ClassVar[Pipeline | None] = None

    agent_id: UUID
    """The agent_id of the pipeline's task, for runners: `ax.OpenAIRunner(self.agent_id)`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_pipeline" not in cls.__dict__ and cls._pipeline is not None:
            cls._pipeline._define(cls)


class Pipeline:
    """Steps that run one after the other, as one task of a pool.

        pipeline = ax.Pipeline(pool)

        class Research(pipeline.Base):
            @pipeline.step(0, "gathering data")
            async def gather(self, context: Company) -> tuple[Brand, Market]: ...

            @pipeline.step(1, "analysis")
            async def analyze(self, brand: Brand, market: Market) -> Report: ...

    The output of each step is recorded when the step is done. After a crash the pipeline resumes at the step that was
    running, which starts again from its top and finds the tasks that it enqueued before. Steps pass pydantic models to
    each other, one or a tuple of several.

    Args:
        pool: Pool that runs the pipeline's task.
        name: Name of the task; the name of the pipeline's class by default.
        **options: See [`ax.HandlerOptions`][agentexec.HandlerOptions]. A retry resumes at the step that failed.
    """

    Base: Any
    """Base class for the pipeline's class."""

    def __init__(self, pool: TaskPool, name: str | None = None, **options: Unpack[HandlerOptions]) -> None:
        self._pool = pool
        self._name = name
        self._options = options
        self._class: type[PipelineBase] | None = None
        self._task: TaskDefinition | None = None
        self._steps: list[Step] = []
        self.Base = type("PipelineBase", (PipelineBase,), {"_pipeline": self})

    @property
    def name(self) -> str:
        """Name of the pipeline's task. Reading it raises UsageError before the pipeline's class is defined."""
        return self._name or self._defined().__name__

    def step(self, order: int, description: str | None = None) -> Callable[[F], F]:
        """Make a method a step.

        Args:
            order: Position of the step. Steps run in ascending order; gaps are allowed.
            description: Text shown while the step runs, as in "Step 2 of 3: analysis"; the method's name by default.

        Returns:
            The decorator for the method.
        """

        def mark(method: F) -> F:
            setattr(method, STEP_MARK, (order, description))
            return method

        return mark

    async def enqueue(
        self,
        context: Context = None,
        *,
        session: Session | scoped_session[Session] | AsyncSession | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> Task:
        """Enqueue the pipeline's task.

        Args:
            context: Input of the first step.
            session: Session of the application, as for `ax.enqueue`.
            **options: See [`ax.EnqueueOptions`][agentexec.EnqueueOptions].

        Returns:
            The handle of the task.

        Raises:
            AgentexecError: As `ax.enqueue` does.
        """
        return await enqueue(self.name, context, session=session, **options)

    def enqueue_sync(
        self,
        context: Context = None,
        *,
        session: Session | scoped_session[Session] | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> Task:
        """Enqueue the pipeline's task: `enqueue` for code without an event loop."""
        return enqueue_sync(self.name, context, session=session, **options)

    async def run(self, context: Any = None) -> Any:
        """Run the steps in this process and return the output of the last step.

        Inside a task the steps are recorded in that task; elsewhere nothing is recorded. An error of a step is raised.

        Args:
            context: Input of the first step.

        Returns:
            The output of the last step.

        Raises:
            ContextInvalidError: The context does not fit the first step.
            UsageError: The pipeline has no steps yet.
        """
        self._defined()
        if self._task is not None:
            context = validate_context(self._task, context)
        scope = current_scope()
        if scope is None:
            return await self._run(None, new_agent_id(), context, reports=False)
        await scope.recorder.open()
        # The path contains the context, because concurrent branches may come here in another order in another attempt.
        place = f"pipeline:{self.name.replace('/', '_').replace('#', '_')[:60]}:{digest(context)[:16]}"
        path = scope.claim_path(place, digest(self.name), f"the pipeline {self.name}")
        return await self._run(scope.child_scope(path), scope.recorder.lease.agent_id, context, reports=False)

    def run_sync(self, context: Any = None) -> Any:
        """Run the steps: `run` for code without an event loop, with the same arguments, result and errors."""
        return run_blocking(lambda: self.run(context))

    def _define(self, cls: type[PipelineBase]) -> None:
        """Check the pipeline's class and register its task, when the class is defined. Raises TypeError, UsageError."""
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
            "context": first.inputs[0] if first.inputs else Any,
            "return": last.return_type,
        }
        handler.__name__ = handler.__qualname__ = self.name
        self._task = self._pool.add_task(self.name, handler, **self._options)

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
        """Number of steps."""
        return len(self._steps)


class PipelineStep(StepCall):
    """Call of a step. The journal knows it by the method's name alone, since its input is a recorded output."""

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
        """Report the step's progress, run it, and check what it returns."""
        if self._reports:
            self._report()
        return self._step.validate_output(await super().call_function())

    def encode(self, answer: Any) -> Any:
        """Return the step's output as a value that JSON can hold."""
        return self._step.dump(answer.value)

    def decode(self, value: Any) -> Any:
        """Return the output as the types that the step declares."""
        return self._step.load(value)

    def _report(self) -> None:
        writer = RUNTIME.progress_writer
        if writer is not None and writer.holds(self._agent_id):
            message = f"Step {self._number} of {self._of}: {self._step.description}"
            update(self._agent_id, message, 100 * (self._number - 1) // self._of)
