"""Signatures of handlers: which callables can be handlers, and the types that they declare."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentexec.errors import UsageError
from agentexec.values.codec import Codec, shown

CALL = "__call__"
"""Name of the method that makes an object callable."""

GIVEN = ("agent_id", "context")
"""Names of the arguments with which handlers are called."""


_Kind = inspect.Parameter


class HandlerSignature(NamedTuple):
    """Facts about a handler. `is_async`: calling it gives a coroutine and does not block.

    `may_be_async`: it is a plain function around an async one, and may return the coroutine of that.
    """

    is_async: bool
    may_be_async: bool
    context: Codec
    result: Codec


def read_handler(task: str, handler: Any) -> HandlerSignature:
    """Return what a handler's signature says. Raises UsageError for one that cannot be called as a handler is."""
    what = f"The handler of task {task}"
    _require_callable(what, handler)
    outer, inner = outermost_function(handler), innermost_function(handler)
    if inspect.isgeneratorfunction(outer) or inspect.isasyncgenfunction(outer):
        raise UsageError(
            f"{what} is a generator; return the result, and report progress with ax.activity.update or runner.report."
        )
    _require_parameters(task, handler)
    hints = {
        name: resolve_hint(what, inner, name, label)
        for name, label in (("context", "the parameter context"), ("return", "the return value"))
    }
    return HandlerSignature(
        is_async=inspect.iscoroutinefunction(outer),
        may_be_async=inspect.iscoroutinefunction(inner),
        context=_codec(what, hints["context"], "its parameter context"),
        result=_codec(what, _awaited(hints["return"]), "its return value"),
    )


def outermost_function(handler: Any) -> Any:
    """Return the function that a call of a handler runs first: that of a partial, method or callable object."""
    while True:
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, staticmethod | types.MethodType):
            handler = handler.__func__
        elif not inspect.isroutine(handler) and not inspect.iscoroutinefunction(handler):
            return getattr(type(handler), CALL, handler)
        else:
            return handler


def innermost_function(handler: Any) -> Any:
    """Return the function that a handler's decorators wrap, whose annotations count."""
    while True:
        function = outermost_function(handler)
        unwrapped = inspect.unwrap(function if function is not handler else handler)
        if unwrapped is handler:
            return handler
        handler = unwrapped


def _require_callable(what: str, handler: Any) -> None:
    if inspect.isclass(handler):
        raise UsageError(
            f"{what} is the class {handler.__name__}; register a function, or an object with __call__."
        )
    if isinstance(handler, classmethod):
        raise UsageError(
            f"{what} is a class method in the making; register it as Class.method, below the class."
        )
    if inspect.iscoroutine(handler):
        handler.close()
        raise UsageError(f"{what} is a coroutine; pass the function without calling it.")
    if not callable(handler):
        raise UsageError(
            f"{what} is a {type(handler).__name__}, which cannot be called; register a function."
        )


def _require_parameters(task: str, handler: Any) -> None:
    what = f"The handler of task {task}"
    if isinstance(handler, staticmethod):
        handler = handler.__func__
    try:
        outer = inspect.signature(handler, follow_wrapped=False).parameters
        # A decorator that passes everything on is judged by what it wraps; it may add arguments of its own.
        parameters = inspect.signature(handler).parameters if _takes_any(outer) else outer
    except (ValueError, TypeError):
        raise UsageError(f"{what} has no signature that Python can read; wrap it in a function.") from None
    takes_any = _takes_any(parameters)
    for name in GIVEN:
        kind = parameters[name].kind if name in parameters else None
        if kind is _Kind.POSITIONAL_ONLY:
            raise UsageError(
                f"{what} takes {name} by position only, but it is passed by name; remove the slash."
            )
        if kind in (None, _Kind.VAR_POSITIONAL) and not takes_any:
            raise UsageError(
                f"{what} lacks the parameter {name}; write it as "
                f"`async def {getattr(handler, '__name__', 'handler')}(agent_id: UUID, context: MyContext)`."
            )
    _refuse_further_parameters(what, outer)


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is _Kind.VAR_KEYWORD for parameter in parameters.values())


def _refuse_further_parameters(what: str, parameters: Mapping[str, inspect.Parameter]) -> None:
    required = [name for name in parameters if name not in GIVEN and _is_required(parameters[name])]
    if required:
        advice = "give it a default, or bind it with functools.partial"
        if required[0] in ("self", "cls"):
            advice = "register the bound method of an object"
        raise UsageError(
            f"{what} requires the parameter {required[0]}, but is called with agent_id and context; {advice}."
        )


def _is_required(parameter: inspect.Parameter) -> bool:
    is_variadic = parameter.kind in (_Kind.VAR_KEYWORD, _Kind.VAR_POSITIONAL)
    return not is_variadic and parameter.default is inspect.Parameter.empty


def resolve_hint(what: str, function: Any, name: str, label: str) -> Any:
    """Return the type with which one parameter is annotated, or the return value ("return"); Any without annotation.

    Each annotation is resolved by itself, so one that nobody needs may be imported for the type checker only. Local
    classes are found while the functions that define them run.

    Raises:
        UsageError: A name in the annotation does not exist.
    """
    annotation = _annotations(function).get(name, Any)
    if annotation is inspect.Signature.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    names = getattr(function, "__globals__", {})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)[name]
    except Exception:
        local = _local_names(function)
    try:
        return typing.get_type_hints(holder, names, local, include_extras=True)[name]
    except Exception as error:
        text = annotation if isinstance(annotation, str) else shown(annotation)
        raise UsageError(
            f"{what} annotates {label} with {text}, which cannot be resolved ({error}); import or define it at the top "
            "of the module, outside `if TYPE_CHECKING`."
        ) from None


def _annotations(function: Any) -> Mapping[str, Any]:
    try:
        return getattr(function, "__annotations__", None) or {}
    except NameError:
        # Python 3.14 evaluates annotations on use, and all of them together.
        library: Any = sys.modules.get("annotationlib") or __import__("annotationlib")
        return library.get_annotations(function, format=library.Format.FORWARDREF)


def _local_names(function: Any) -> dict[str, Any]:
    """Return the local names that a function could see where it is defined: of running functions, and its closure."""
    names: dict[str, Any] = {}
    module = getattr(function, "__globals__", None)
    frames: list[types.FrameType] = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is module:
            frames.append(frame)
        frame = frame.f_back
    for found in reversed(frames):
        names.update(found.f_locals)
    names.update({parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())})
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # the name is not bound yet
            continue
    return names


def _awaited(hint: Any) -> Any:
    """Return the type that a return annotation promises in the end."""
    origin = typing.get_origin(hint)
    if origin in (collections.abc.Awaitable, collections.abc.Coroutine):
        return typing.get_args(hint)[-1]
    return Any if hint in (typing.NoReturn, typing.Never, *_BARE_AWAITABLES) else hint


_BARE_AWAITABLES = (collections.abc.Awaitable, collections.abc.Coroutine, typing.Awaitable, typing.Coroutine)


def _codec(what: str, hint: Any, label: str) -> Codec:
    try:
        return Codec(hint)
    except UsageError as error:
        raise UsageError(
            f"{what} annotates {label} with {shown(hint)}, which cannot be read from JSON ({error}); use a pydantic "
            "model, a dataclass or plain types."
        ) from None


def default_name(handler: Callable[..., Any]) -> str:
    """Return the name of a function, for a task that is registered without one. Raises UsageError if it has none."""
    name = getattr(innermost_function(handler), "__name__", "")
    if (
        isinstance(handler, functools.partial)
        or not name.isidentifier()
        or inspect.isclass(handler)
        or name == CALL
    ):
        raise UsageError('A task without a function\'s name needs one of its own: @pool.task("name").')
    return name
