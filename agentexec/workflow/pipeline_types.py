"""Types that flow between the steps of a pipeline: read from annotations, checked when the class is defined."""

from __future__ import annotations

import inspect
import itertools
import json
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import ValidationError, to_json

from agentexec.errors import AgentexecError, UsageError
from agentexec.values.codec import Codec, first_error
from agentexec.values.signatures import resolve_hint

ANY = inspect.Signature.empty
"""A missing annotation, which fits every type."""


@dataclass(frozen=True)
class Step:
    """Step of a pipeline. `inputs` and `outputs` are types; `outputs` is None if the return is not annotated."""

    name: str
    order: int
    description: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...] | None
    return_type: Any
    codec: Codec

    def validate_output(self, value: Any) -> Any:
        """Return the value in the form that the step is annotated with; a list from `asyncio.gather` becomes a tuple.

        Raises TypeError for any other value that does not fit.
        """
        if self.outputs is None or (self.outputs == () and value is None):
            return value
        several = typing.get_origin(self.return_type) is tuple
        if several and isinstance(value, list):
            value = tuple(value)
        values = value if several and isinstance(value, tuple) else (value,)
        if not _are_instances(values, self.outputs):
            got = ", ".join(type(part).__name__ for part in values)
            raise TypeError(
                f"Step {self.name} returned {got}, but its annotation says {_shown(self.return_type)}."
            )
        return value

    def dump(self, value: Any) -> Any:
        """Return the value as JSON data that comes back. Raises UsageError for a value that has none."""
        data = json.loads(self.codec.dump(value, f"The output of step {self.name}"))
        return {"several": isinstance(value, tuple), "output": data}

    def load(self, data: Any) -> Any:
        """Return the value that `dump` recorded. Raises AgentexecError if the step's type has changed since."""
        try:
            value = data["output"] if self.codec.is_any else self.codec.load(to_json(data["output"]))
        except ValidationError as error:
            raise AgentexecError(
                f"The recorded output of step {self.name} no longer fits its type {_shown(self.return_type)}: "
                f"{first_error(error)}."
            ) from None
        return tuple(value) if data["several"] else value


def parse_step(method: Callable[..., Any], order: int, description: str | None) -> Step:
    """Return the step that a method describes. Raises TypeError for a signature or annotation that cannot be used."""
    name = getattr(method, "__name__", "step")
    parameters = list(inspect.signature(method).parameters.values())[1:]
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"Step {name} may take plain parameters only, not {parameter}.")
    inputs = tuple(_hint(name, method, parameter.name) for parameter in parameters)
    for parameter, wanted in zip(parameters, inputs, strict=True):
        if not _is_model(wanted):
            raise TypeError(
                f"Step {name} takes {parameter.name}: {_shown(wanted)}, but steps take pydantic models."
            )
    returns = _hint(name, method, "return")
    return Step(
        name=name,
        order=order,
        description=description or name,
        inputs=inputs,
        outputs=_outputs(name, returns),
        return_type=returns,
        codec=Codec(Any if returns in (ANY, type(None)) else returns),
    )


def _hint(step: str, method: Callable[..., Any], name: str) -> Any:
    function = inspect.unwrap(method)
    if name not in getattr(function, "__annotations__", {}):
        return ANY
    try:
        return resolve_hint(
            f"Step {step}", function, name, "its return value" if name == "return" else f"its {name}"
        )
    except UsageError as error:
        raise TypeError(str(error)) from None


def _outputs(name: str, returns: Any) -> tuple[Any, ...] | None:
    if returns in (ANY, Any):
        return None
    if returns in (None, type(None)):
        return ()
    outputs = typing.get_args(returns) if typing.get_origin(returns) is tuple else (returns,)
    if Ellipsis in outputs:
        raise TypeError(f"Step {name} returns {_shown(returns)}; annotate how many models it returns.")
    for output in outputs:
        if not _is_model(output):
            raise TypeError(f"Step {name} returns {_shown(returns)}, but steps return pydantic models.")
    return outputs


def _is_model(wanted: Any) -> bool:
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return all(_is_model(member) for member in typing.get_args(wanted) if member is not type(None))
    return wanted in (ANY, Any) or (isinstance(wanted, type) and issubclass(wanted, BaseModel))


def check_step_types(pipeline: str, steps: Sequence[Step]) -> None:
    """Raise TypeError unless each step, in order, takes the output of the step before it."""
    if not steps:
        raise TypeError(f"Pipeline {pipeline} has no steps; mark its methods with @pipeline.step(0).")
    first = steps[0]
    if len(first.inputs) > 1:
        raise TypeError(
            f"Step {first.name} is the first of pipeline {pipeline} and takes one input, the context; it has {len(first.inputs)}."
        )
    for before, after in itertools.pairwise(steps):
        if before.order == after.order:
            raise TypeError(
                f"Steps {before.name} and {after.name} of pipeline {pipeline} both have the order {after.order}."
            )
        if before.outputs is None:
            continue
        if len(before.outputs) != len(after.inputs):
            raise TypeError(
                f"Step {after.name} of pipeline {pipeline} takes {_counted(after.inputs)}, but step {before.name} "
                f"returns {_counted(before.outputs)}."
            )
        for given, wanted in zip(before.outputs, after.inputs, strict=True):
            if not _fits(given, wanted):
                raise TypeError(
                    f"Step {after.name} of pipeline {pipeline} takes {_shown(wanted)}, but step {before.name} "
                    f"returns {_shown(given)}."
                )


def step_arguments(before: Step, after: Step, value: Any) -> tuple[Any, ...]:
    """Return the output of a step as the arguments of the next step.

    Annotated outputs were compared when the class was defined. Others are first known here, and are plain data once
    they were recorded. Raises TypeError, which names both steps, for an output that does not fit.
    """
    if before.outputs == () or (before.outputs is None and value is None and not after.inputs):
        return ()
    several = isinstance(value, tuple) or (isinstance(value, list) and len(after.inputs) > 1)
    values = tuple(value) if several else (value,)
    if len(values) != len(after.inputs):
        raise TypeError(
            f"Step {after.name} takes {_counted(after.inputs)}, but step {before.name} returned {len(values)}."
        )
    outputs = before.outputs or (ANY,) * len(values)
    return tuple(
        _as_input(before, after, given, wanted, value)
        for given, wanted, value in zip(outputs, after.inputs, values, strict=True)
    )


def _as_input(before: Step, after: Step, given: Any, wanted: Any, value: Any) -> Any:
    """Return an output as the input type `wanted`. It is validated unless its own type `given` was compared before."""
    if given not in (ANY, Any) or wanted in (ANY, Any):
        return value
    try:
        return TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        raise TypeError(
            f"Step {after.name} takes {_shown(wanted)}, which the output of step {before.name} does not fit: "
            f"{first_error(error)}."
        ) from None


def _are_instances(values: Sequence[Any], types: Sequence[Any]) -> bool:
    return len(values) == len(types) and all(
        not isinstance(wanted, type) or isinstance(value, wanted)
        for value, wanted in zip(values, types, strict=True)
    )


def _fits(given: Any, wanted: Any) -> bool:
    if given in (ANY, Any) or wanted in (ANY, Any):
        return True
    accepted = typing.get_args(wanted) or (wanted,)
    return all(
        any(member is kind or (isinstance(member, type) and issubclass(member, kind)) for kind in accepted)
        for member in typing.get_args(given) or (given,)
    )


def _counted(annotations: Sequence[Any]) -> str:
    return (
        f"{len(annotations)} ({', '.join(_shown(annotation) for annotation in annotations)})"
        if annotations
        else "nothing"
    )


def _shown(annotation: Any) -> str:
    if annotation is ANY:
        return "anything"
    return (
        annotation.__name__
        if isinstance(annotation, type) and not typing.get_args(annotation)
        else str(annotation)
    )
