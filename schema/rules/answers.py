"""Check an answer against its step's promise, and word the feedback to the agent."""

import json
from collections.abc import Mapping
from typing import Final

from schema.cel.expressions import Json, compile_expression, evaluate
from schema.errors import InvalidDefinition, StepError
from schema.language import document, json_schemas, model_json
from schema.language.catalogue import BUILT_IN, Catalogue
from schema.language.fences import unfenced
from schema.language.json_numbers import as_declared
from schema.language.model_json import read_model_json, without_thoughts
from schema.language.steps import AgentStep, Expectation, Reflect
from schema.language.templates import as_text
from schema.rules.validate import validate
from schema.values.foreign_json import NotJson, read_json

MAX_FAULTS: Final = 20
"""More would only make the next question dearer: the first ones usually explain the rest."""


class NotReadable(ValueError):
    """The answer is not the JSON that the step needs."""


def rules_of(step: AgentStep) -> Reflect:
    """Return how often the agent may answer again, and what is expected beyond the schema."""
    if step.reflect is not None:
        return step.reflect
    return Reflect() if step.output_schema is not None or step.emits else Reflect(max=0)


def read(step: AgentStep, answer: str) -> Json:
    """The output that an answer holds: text, or JSON where the step promises it, whatever it is wrapped in.

    Raises NotReadable.
    """
    if step.output_schema is None and step.emits is None:
        return answer
    try:
        if step.emits:
            return document.load(_plan_in(answer).encode("utf-8", "replace"))
        found = read_model_json(answer, lambda value: _fits(step, value))
        return as_declared(step.output_schema or {}, found)
    except InvalidDefinition as error:
        problem = error.problems[0]
        raise NotReadable(f"{problem.pointer or '/'}: {problem.message}") from None
    except NotJson as error:
        raise NotReadable(f"it is not JSON ({error}); it begins {answer[:80]!r}.") from None


def mended(step: AgentStep, answer: str) -> Json:
    """The output that an answer must mean that is nearly JSON, where the step wants it mended.

    Raises NotReadable.
    """
    if step.output_schema is None or not rules_of(step).repair:
        raise NotReadable("it is not mended here")
    try:
        return as_declared(step.output_schema, model_json.mended(answer))
    except NotJson as error:
        raise NotReadable(str(error)) from None


def _fits(step: AgentStep, value: Json) -> bool:
    return step.output_schema is None or not json_schemas.violations(step.output_schema, value)


def _plan_in(answer: str) -> str:
    """The text of a plan as it stands in an answer, where it can be found; raises NotJson."""
    text = unfenced(without_thoughts(answer))
    try:
        read_json(text)
        return text
    except NotJson:
        pass
    try:
        found = read_model_json(answer, _is_plan)
    except NotJson:
        return text
    return json.dumps(found) if _is_plan(found) else text


def _is_plan(value: Json) -> bool:
    return isinstance(value, dict) and "steps" in value


def faults(
    step: AgentStep, output: Json, scope: Mapping[str, Json], catalogue: Catalogue = BUILT_IN
) -> list[str]:
    """Everything that is wrong with an output; empty when it is fine. `scope` is what the prompt may use,
    `catalogue` what a planned definition may name."""
    found: list[str] = []
    if step.output_schema is not None:
        wrong = json_schemas.violations(step.output_schema, output)
        found += [f"{pointer or '/'}: {message}" for pointer, message in wrong]
    if step.emits:
        try:
            validate(output, catalogue=catalogue, planned=True)
        except InvalidDefinition as error:
            found += [f"{one.pointer or '/'}: {one.message}" for one in error.problems]
    if not found:
        # Expectations read fields that only a fitting output is sure to have.
        seen = {**scope, "output": output}
        found = [fault for one in rules_of(step).expect if (fault := _unmet(one, seen))]
    return found


def feedback(found: list[str], *, json_wanted: bool) -> str:
    """The message that asks the agent to answer again."""
    shown = "\n".join(f"- {fault}" for fault in found[:MAX_FAULTS])
    more = f"\n- and {len(found) - MAX_FAULTS} more" if len(found) > MAX_FAULTS else ""
    form = "the whole corrected JSON and nothing else" if json_wanted else "the whole corrected text"
    return f"Your answer cannot be used as it is:\n{shown}{more}\n\nAnswer again, with {form}."


def _unmet(expectation: Expectation, scope: Mapping[str, Json]) -> str | None:
    try:
        held = evaluate(compile_expression(expectation.that), scope)
    except StepError as error:
        return f"{expectation.message} ({error.message})"
    if held is True:
        return None
    return (
        expectation.message if held is False else f"{expectation.message} (it came to {as_text(held)[:100]})"
    )
