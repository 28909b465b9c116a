"""What flows from one step of a pipeline to the next: read from annotations, checked when the class is defined."""

from __future__ import annotations

import inspect
import itertools
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError, ValidationError

from agentexec.errors import AgentexecError
from agentexec.registry import first_error_message

ANY = inspect.Signature.empty
"""What is not annotated fits everything."""


@dataclass(frozen=True)
class Step:
    """A step of a pipeline. `inputs` and `outputs` are types; `outputs` is None where the return is not annotated."""

    name: str
    order: int
    description: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...] | None
    return_type: Any
    adapter: TypeAdapter[Any]

    def validate_output(self, value: Any) -> Any:
        """A value as the step says it returns it: the list that `asyncio.gather` gives stands for a tuple.

        Raises TypeError for any other value that does not fit.
        """
        if self.outputs is None or (self.outputs == () and value is None):
            return value
        several = typing.get_origin(self.return_type) is tuple
        if several and isinstance(value, list):
            value = tuple(value)
        values = value if several and isinstance(value, tuple) else (value,)
        fits = len(values) == len(self.outputs) and all(
            not isinstance(wanted, type) or isinstance(one, wanted)
            for one, wanted in zip(values, self.outputs, strict=True)
        )
        if not fits:
            got = ", ".join(type(one).__name__ for one in values)
            raise TypeError(
                f"Step {self.name} returned {got}, but its annotation says {_shown(self.return_type)}."
            )
        return value

    def dump(self, value: Any) -> Any:
        """A value as JSON data. Raises AgentexecError for what is none."""
        several = isinstance(value, tuple)
        try:
            data = self.adapter.dump_python(value, mode="json", warnings=False, serialize_as_any=True)
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise AgentexecError(
                f"The output of step {self.name} cannot be written as JSON: {str(error).splitlines()[0]}"
            ) from None
        return {"several": several, "output": data}

    def load(self, data: Any) -> Any:
        """The value again. Raises AgentexecError where the step's type has changed since."""
        try:
            value = self.adapter.validate_python(data["output"])
        except ValidationError as error:
            raise AgentexecError(
                f"The recorded output of step {self.name} does not fit its type {_shown(self.return_type)} any more: "
                f"{first_error_message(error)}."
            ) from None
        return tuple(value) if data["several"] else value


def parse_step(method: Callable[..., Any], order: int, description: str | None) -> Step:
    """A step from its method. Raises TypeError for a signature or annotation that cannot be used."""
    name = getattr(method, "__name__", "step")
    try:
        hints = typing.get_type_hints(inspect.unwrap(method))
    except NameError as error:
        raise TypeError(
            f"Step {name} has an annotation that cannot be found: {error}; define its types at the module's top level."
        ) from None
    parameters = list(inspect.signature(method).parameters.values())[1:]
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"Step {name} may take plain parameters only, not {parameter}.")
    inputs = tuple(hints.get(parameter.name, ANY) for parameter in parameters)
    for parameter, wanted in zip(parameters, inputs, strict=True):
        if not _is_model(wanted):
            raise TypeError(
                f"Step {name} takes {parameter.name}: {_shown(wanted)}; what steps take are pydantic models."
            )
    returns = hints.get("return", ANY)
    return Step(
        name=name,
        order=order,
        description=description or name,
        inputs=inputs,
        outputs=_outputs(name, returns),
        return_type=returns,
        adapter=TypeAdapter(Any if returns in (ANY, type(None)) else returns),
    )


def _outputs(name: str, returns: Any) -> tuple[Any, ...] | None:
    if returns in (ANY, Any):
        return None
    if returns in (None, type(None)):
        return ()
    outputs = typing.get_args(returns) if typing.get_origin(returns) is tuple else (returns,)
    if Ellipsis in outputs:
        raise TypeError(f"Step {name} returns {_shown(returns)}; a step says how many models it returns.")
    for one in outputs:
        if not _is_model(one):
            raise TypeError(f"Step {name} returns {_shown(returns)}; what steps return are pydantic models.")
    return outputs


def _is_model(wanted: Any) -> bool:
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return all(_is_model(one) for one in typing.get_args(wanted) if one is not type(None))
    return wanted in (ANY, Any) or (isinstance(wanted, type) and issubclass(wanted, BaseModel))


def check_step_types(pipeline: str, steps: Sequence[Step]) -> None:
    """Raise TypeError unless each step, in order, takes what the one before returns."""
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
    """The output of a step as the next one's arguments. Raises TypeError, which names both, where it does not fit.

    What is annotated was compared when the class was defined. Of the rest this is the first that is known of it, and
    after its record it is plain data.
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
        _as_wanted(before, after, wanted, one) if given in (ANY, Any) and wanted not in (ANY, Any) else one
        for given, wanted, one in zip(outputs, after.inputs, values, strict=True)
    )


def _as_wanted(before: Step, after: Step, wanted: Any, value: Any) -> Any:
    try:
        return TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        raise TypeError(
            f"Step {after.name} takes {_shown(wanted)}, which the output of step {before.name} does not fit: "
            f"{first_error_message(error)}."
        ) from None


def _fits(given: Any, wanted: Any) -> bool:
    if given in (ANY, Any) or wanted in (ANY, Any):
        return True
    of_wanted = typing.get_args(wanted) or (wanted,)
    return all(
        any(one is other or (isinstance(one, type) and issubclass(one, other)) for other in of_wanted)
        for one in typing.get_args(given) or (given,)
    )


def _counted(some: Sequence[Any]) -> str:
    return f"{len(some)} ({', '.join(_shown(one) for one in some)})" if some else "nothing"


def _shown(annotation: Any) -> str:
    if annotation is ANY:
        return "anything"
    return (
        annotation.__name__
        if isinstance(annotation, type) and not typing.get_args(annotation)
        else str(annotation)
    )
