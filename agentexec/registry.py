"""Registry of a pool's task definitions, which are read from the handlers' signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Unpack

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError

from agentexec.arguments.approval_policies import NO_POLICY, ApprovalPolicy, checked_approvals
from agentexec.arguments.budgets import TaskBudget, checked_limit, checked_policy
from agentexec.arguments.checks import check_integer, check_seconds, check_text
from agentexec.arguments.debounce import checked_debounce
from agentexec.arguments.fairness import checked_fairness_key, checked_fairness_weight
from agentexec.arguments.group_options import checked_groups
from agentexec.arguments.queue_names import check_queue_name
from agentexec.arguments.versions import checked_divergence, checked_version
from agentexec.arguments.webhooks import check_url
from agentexec.errors import ContextInvalidError, UnknownTaskError, UsageError
from agentexec.task import HandlerOptions, ScheduleDefinition, TaskDefinition, require_known_options
from agentexec.values.codec import first_error, shown
from agentexec.values.signatures import default_name, read_handler

MAX_TASK_NAME = 200

HANDLER_RETRIES = 5
"""Retries of an `on_failure` or `on_approval` handler that is not a task with options of its own."""


class Registry:
    """Task definitions by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskDefinition] = {}
        self.queue_name: str | None = None
        """Queue of these tasks, if their pool names one."""
        self.queues: str | None = None
        """Queues that the workers of these tasks serve, if their pool names them."""
        self.limits: dict[str, int] = {}
        """Limits of concurrency by task name."""
        self.locked: set[str] = set()
        """Names of the tasks with a lock."""
        self.versions: dict[str, str] = {}
        """Versions by task name, of the tasks that have one of their own."""
        self.schedules: dict[str, ScheduleDefinition] = {}
        """Schedules by name."""
        self.failure_handlers: list[str] = []
        """Names of the tasks that are enqueued when any task has failed."""
        self.approvals: ApprovalPolicy = NO_POLICY
        """Policy of approvals of all tasks."""
        self.approval_handlers: list[str] = []
        """Names of the tasks that are enqueued when any task asks for approval."""

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[TaskDefinition]:
        return iter(self._tasks.values())

    def queue_of(self, name: str) -> str | None:
        """Return the queue of a task, if its definition or its pool names one."""
        definition = self._tasks.get(name)
        return None if definition is None else definition.queue or self.queue_name

    def names(self) -> list[str]:
        """Return the names of all tasks."""
        return list(self._tasks)

    def find(self, name: str) -> TaskDefinition | None:
        """Return the definition of a task, or None."""
        return self._tasks.get(name)

    def get(self, name: str) -> TaskDefinition:
        """Return the definition of a task. Raises UnknownTaskError."""
        definition = self._tasks.get(name)
        if definition is None:
            known = ", ".join(sorted(self._tasks)) or "none"
            raise UnknownTaskError(f"There is no task named {name}; registered tasks: {known}.")
        return definition

    def add(
        self,
        name: str,
        handler: Callable[..., Any],
        **options: Unpack[HandlerOptions],
    ) -> TaskDefinition:
        """Register a handler. Raises UsageError for a name that is taken, or a signature that cannot be called."""
        require_known_options("task", options, accepts=HandlerOptions)
        name = _checked_name(name)
        known = self._tasks.get(name)
        if known is not None and known.handler != handler:
            raise UsageError(f"Task {name} is registered twice; give one of the handlers another name.")
        retries, timeout = _checked_options(name, options)
        signature = read_handler(name, handler)
        if timeout is not None and not (signature.is_async or signature.may_be_async):
            raise UsageError(
                f"Task {name}: a plain function cannot be stopped; write `async def` to use timeout=."
            )
        definition = TaskDefinition(
            name=name,
            handler=handler,
            is_async=signature.is_async,
            context=signature.context,
            result=signature.result,
            retries=retries,
            timeout=timeout,
            retry_on=_checked_retry_on(name, options.get("retry_on")),
            backoff=_checked_backoff(name, options.get("backoff")),
            expires=_checked_expiry(name, options.get("expires")),
            **checked_groups(name, options),
            fairness_key=checked_fairness_key(f"Task {name}: fairness_key", options.get("fairness_key")),
            fairness_weight=checked_fairness_weight(
                f"Task {name}: fairness_weight", options.get("fairness_weight")
            ),
            debounce=checked_debounce(f"Task {name}: ", options),
            webhook=_checked_webhook(name, options.get("webhook")),
            on_failure=self._failure_handler(name, options.get("on_failure")),
            approvals=checked_approvals(f"Task {name}: approvals", options.get("approvals")),
            queue=_checked_queue(name, options.get("queue")),
            version=checked_version(f"Task {name}: version", options.get("version")),
            on_divergence=checked_divergence(f"Task {name}: on_divergence", options.get("on_divergence")),
            budget=TaskBudget(
                checked_limit(f"Task {name}: budget", options.get("budget")),
                checked_policy(f"Task {name}: on_budget", options.get("on_budget")),
            ),
        )
        self._tasks[name] = definition
        if definition.concurrency is not None:
            self.limits[name] = definition.concurrency
        if definition.lock_key is not None:
            self.locked.add(name)
        if definition.version is not None:
            self.versions[name] = definition.version
        return definition

    def add_failure_handler(self, handler: Callable[..., Any], **options: Unpack[HandlerOptions]) -> None:
        """Register a handler of the failures of all tasks. Raises UsageError as `add` does."""
        name = self._add_handler_task(handler, options, "on_failure")
        if name not in self.failure_handlers:
            self.failure_handlers.append(name)

    def handlers_of_failure(self, task_name: str) -> list[str]:
        """Return the tasks that are enqueued when a task has failed; none when one of these has, or it would never end."""
        if task_name in self.failure_handlers or task_name in self._own_handlers():
            return []
        definition = self._tasks.get(task_name)
        own = [] if definition is None or definition.on_failure is None else [definition.on_failure]
        return [*own, *(name for name in self.failure_handlers if name not in own)]

    def add_approval_handler(self, handler: Callable[..., Any], **options: Unpack[HandlerOptions]) -> None:
        """Register a handler of the questions of all tasks. Raises UsageError as `add` does."""
        name = self._add_handler_task(handler, options, "on_approval")
        if name not in self.approval_handlers:
            self.approval_handlers.append(name)

    def handlers_of_approval(self, task_name: str) -> list[str]:
        """Return the tasks that are enqueued when a task asks; none when one of these does, or it would never end."""
        return [] if task_name in self.approval_handlers else self.approval_handlers

    def _own_handlers(self) -> set[str | None]:
        return {definition.on_failure for definition in self._tasks.values()} - {None}

    def _failure_handler(self, name: str, handler: Any) -> str | None:
        """Return the task that is enqueued when a task has failed, after registering its handler."""
        if handler is None or isinstance(handler, str):
            return handler
        if not callable(handler):
            raise UsageError(
                f"Task {name}: on_failure must be a handler or the name of a task, not {shown(handler)}."
            )
        return self._add_handler_task(handler, {}, "on_failure")

    def _add_handler_task(self, handler: Callable[..., Any], options: HandlerOptions, prefix: str) -> str:
        known = (task.name for task in self._tasks.values() if task.handler == handler)
        if (found := next(known, None)) is not None:
            return found
        given: HandlerOptions = {"retries": HANDLER_RETRIES, **options}
        return self.add(f"{prefix}.{default_name(handler)}", handler, **given).name

    def add_schedule(self, schedule: ScheduleDefinition) -> None:
        """Register a schedule. Raises UsageError for a name that is taken."""
        if self.schedules.setdefault(schedule.name, schedule) != schedule:
            raise UsageError(
                f"Schedule {schedule.name} is declared twice; give one of them another name, and its task as task=."
            )

    def require_versions(self, default: str | None) -> None:
        """Raise UsageError if a task has no version, neither its own nor the worker's."""
        missing = [name for name in self._tasks if name not in self.versions]
        if default is None and missing:
            raise UsageError(
                f"--pin-versions needs a version for each task, and {missing[0]} has none; set AGENTEXEC_WORKER_VERSION, such "
                "as the release or commit that is deployed."
            )

    def complete(self) -> None:
        """Resolve the names within the types of all tasks, once all modules are loaded.

        Raises UsageError that names the task and the type: else the handler would do its work, and the result be lost.
        """
        for task in self._tasks.values():
            if task.on_failure is not None and task.on_failure not in self._tasks:
                raise UsageError(
                    f"Task {task.name} names {task.on_failure} as its on_failure, and there is no such task."
                )
            for label, codec in (("the parameter context", task.context), ("the return value", task.result)):
                try:
                    codec.complete()
                except UsageError as error:
                    raise UsageError(
                        f"The handler of task {task.name} annotates {label} with {shown(codec.hint)}, which cannot be read "
                        f"from JSON ({error}); import or define what it names at the top of its module."
                    ) from None


def _checked_name(name: str) -> str:
    """Return a name that `enqueue` accepts."""
    if isinstance(name, str) and not 1 <= len(name) <= MAX_TASK_NAME:
        raise UsageError(f"A task name has 1 to {MAX_TASK_NAME} characters; {name[:40]!r} has {len(name)}.")
    return check_text("The name of a task", name, MAX_TASK_NAME)


def _checked_options(name: str, options: HandlerOptions) -> tuple[int, float | None]:
    """Return the retries and the timeout of a handler."""
    retries, timeout = options.get("retries"), options.get("timeout")
    if retries is not None:
        retries = check_integer(f"Task {name}: retries", retries, minimum=0)
    if timeout is not None:
        timeout = check_seconds(f"Task {name}: timeout", timeout)
        if timeout <= 0:
            raise UsageError(f"Task {name}: timeout must be more than 0 seconds.")
    return retries or 0, timeout


def _checked_retry_on(name: str, value: Any) -> Any:
    """Return a handler's `retry_on`: a tuple of classes, a function or None."""
    classes = (value,) if isinstance(value, type) else value
    if isinstance(classes, tuple | list | set | frozenset):
        if classes and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in classes):
            return tuple(classes)
    elif value is None or _is_plain_function(value):
        return value
    raise UsageError(
        f"Task {name}: retry_on must be classes of exceptions or a plain function that takes one, not {shown(value)}."
    )


def _checked_webhook(name: str, value: Any) -> str | None:
    return None if value is None else check_url(f"Task {name}: webhook", value)


def _checked_expiry(name: str, value: Any) -> float | None:
    """Return a handler's `expires` in seconds, or None."""
    return None if value is None else check_seconds(f"Task {name}: expires", value, minimum=0)


def _checked_backoff(name: str, value: Any) -> Any:
    """Return a handler's `backoff`: seconds, a function or None."""
    if value is None or _is_plain_function(value):
        return value
    if callable(value):
        raise UsageError(
            f"Task {name}: backoff must be seconds or a plain function that takes a number, not {shown(value)}."
        )
    return check_seconds(f"Task {name}: backoff", value, minimum=0)


def _checked_queue(name: str, queue: Any) -> str | None:
    return None if queue is None else check_queue_name(f"Task {name}: queue", queue)


def _is_plain_function(value: Any) -> bool:
    """Return whether a value can be called with one argument, without an event loop."""
    if not callable(value) or inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
        return False
    try:
        inspect.signature(value).bind(None)
    except TypeError:
        return False
    except ValueError:  # built-in functions may have no signature
        return True
    return True


def validate_context(definition: TaskDefinition, context: Any) -> Any:
    """Return a context as its task's type. Raises ContextInvalidError that names the first bad field."""
    if context is None and not definition.context.accepts_none:
        context = {}
    try:
        try:
            return definition.context.validate(context)
        except ValidationError:
            if not isinstance(context, BaseModel):
                raise
            # Another model with the same fields is accepted: a web process may have a smaller copy of the type.
            return definition.context.validate(context.model_dump(round_trip=True))
    except (ValidationError, PydanticUserError) as error:
        raise _context_error(definition, error) from None


def load_context(definition: TaskDefinition, text: str | None) -> Any:
    """Return a context as its task's type from its JSON text. Raises ContextInvalidError that names the first bad field."""
    if text is None and definition.context.accepts_none:
        return None
    try:
        context = definition.context.load(text or "{}")
    except (ValidationError, PydanticUserError) as error:
        raise _context_error(definition, error) from None
    if definition.context.is_any and not isinstance(context, dict):
        raise ContextInvalidError(
            f"The context of task {definition.name} is not valid: it is a {type(context).__name__}, not an object."
        )
    return context


def _context_error(
    definition: TaskDefinition, error: ValidationError | PydanticUserError
) -> ContextInvalidError:
    known = isinstance(error, ValidationError)
    problem = first_error(error) if known else str(error).splitlines()[0].rstrip(".")
    return ContextInvalidError(f"The context of task {definition.name} is not valid: {problem}.")
