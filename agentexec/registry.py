"""Registry of a pool's task definitions, which are read from the handlers' signatures."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Unpack

from pydantic import (
    BaseModel,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    TypeAdapter,
    ValidationError,
)

from agentexec.arguments.checks import check_integer, check_seconds, check_text
from agentexec.errors import ContextInvalidError, UnknownTaskError, UsageError
from agentexec.task import HandlerOptions, TaskDefinition, require_known_options

MAX_TASK_NAME = 200

MAX_QUEUE_NAME = 100
"""Maximum characters of a queue's name."""


class Registry:
    """Task definitions by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskDefinition] = {}
        self.queue_name: str | None = None
        """Queue of these tasks, if their pool names one."""

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[TaskDefinition]:
        return iter(self._tasks.values())

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
        retries, timeout = _checked_options(name, options)
        known = self._tasks.get(name)
        if known is not None and known.handler is not handler:
            raise UsageError(f"Task {name} is registered twice; give one of the handlers another name.")
        is_async = inspect.iscoroutinefunction(inspect.unwrap(handler))
        if timeout is not None and not is_async:
            raise UsageError(
                f"Task {name}: a plain function cannot be stopped; write `async def` to use timeout=."
            )
        definition = TaskDefinition(
            name=name,
            handler=handler,
            is_async=is_async,
            context_type=_context_type(name, handler),
            result_type=_result_type(handler),
            retries=retries,
            timeout=timeout,
        )
        self._tasks[name] = definition
        return definition


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


def validate_context(
    definition: TaskDefinition, context: BaseModel | Mapping[str, Any] | str
) -> BaseModel | Mapping[str, Any]:
    """Return a context as its task's type; a `str` is JSON. Raises ContextInvalidError that names the first bad field."""
    try:
        if definition.context_type is None:
            return _any_object.validate_json(context) if isinstance(context, str) else context
        if isinstance(context, str):
            return definition.context_type.model_validate_json(context)
        if isinstance(context, definition.context_type):
            return context
        # Another model with the same fields is accepted: a web process may have a smaller copy of the type.
        return definition.context_type.model_validate(
            context.model_dump() if isinstance(context, BaseModel) else context
        )
    except ValidationError as error:
        raise ContextInvalidError(
            f"The context of task {definition.name} is not valid: {first_error_message(error)}."
        ) from None


def first_error_message(error: ValidationError) -> str:
    """Return the first problem of a validation error, as `field: problem`, without the input."""
    problem = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    return f"{field}: {problem['msg']}" if field else problem["msg"]


_any_object: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def _hints(handler: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(handler))
    except NameError:
        # A name that only the type checker imports: use the annotations as they are.
        return dict(getattr(handler, "__annotations__", {}))


def _context_type(name: str, handler: Callable[..., Any]) -> type[BaseModel] | None:
    parameters = inspect.signature(handler).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [parameter for parameter in ("agent_id", "context") if parameter not in parameters]
    if missing and not takes_any:
        raise UsageError(
            f"The handler of task {name} lacks the parameter {missing[0]}; write it as "
            f"`async def {getattr(handler, '__name__', 'handler')}(agent_id: UUID, context: MyContext)`."
        )
    annotation = _hints(handler).get("context")
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _result_type(handler: Callable[..., Any]) -> TypeAdapter[Any] | None:
    annotation = _hints(handler).get("return", inspect.Signature.empty)
    if annotation in (inspect.Signature.empty, Any, None, type(None)) or isinstance(annotation, str):
        return None
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return None
