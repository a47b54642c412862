"""What the language means, as naively as it can be written: one step after the other, everything in memory.

Shares nothing with the interpreter but the evaluation of expressions and the shapes of steps. Knows
transforms, switches, quick tools, maps and loops, with conditions, needs, branches, joins and `catch`.

Which of several errors ends a frame is left open, so all that may are kept. Where that decides more than
the code of an error, or where it matters when a step with `join` any or a quorum starts,
`UnspecifiedMeaning` is raised.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from activities.tools import text
from schema.cel.expressions import Json, compile_expression, evaluate
from schema.errors import StepError
from schema.language.definition import Definition
from schema.language.steps import LoopStep, MapStep, Quorum, Step, SwitchStep, ToolStep, TransformStep
from schema.language.templates import expressions, render

Steps = Mapping[str, Step]
Scope = dict[str, Any]

_TOOLS: dict[str, Callable[..., Json]] = {
    "json.parse": text.parse_json,
    "text.code_blocks": text.code_blocks,
    "text.diff": text.diff,
    "pause": lambda seconds: {"seconds": seconds},
}


class UnspecifiedMeaning(Exception):
    """The language does not say what the definition comes to."""


class AbsentRead(AssertionError):
    """An accepted definition reads a step that has not completed, when the frame of that step has ended."""


class ReferenceFailure(Exception):
    """A step or a frame failed, for one of these codes."""

    def __init__(self, *codes: str) -> None:
        super().__init__(*codes)
        self.codes = frozenset(codes)


@dataclass
class Result:
    status: str = "completed"
    output: Json = None
    codes: frozenset[str] = frozenset()
    """Of a failed run: any of these."""
    statuses: dict[str, str] = field(default_factory=dict)
    """path → how the step ended; without those in `unclear`."""
    no_output: bool = False
    """No output is written, and no step has made one."""
    unclear: list[str] = field(default_factory=list)
    """Beginnings of paths within something that failed: what had run by then is open."""

    def is_clear(self, path: str) -> bool:
        return not path.startswith(tuple(self.unclear))


def run(definition: Definition, given: Json) -> Result:
    """What a run comes to; raises Open."""
    result = Result()
    scope: Scope = {
        "input": given,
        "steps": {},
        "run": {"id": "dry-run", "name": definition.name, "version": "0", "tenant": "default"},
    }
    try:
        _frame(definition.steps, scope, "", result)
        result.output = _total(definition.steps, definition.output, scope)
        last = _last(definition.steps)
        made = any(scope["steps"][name]["status"] == "completed" for name in last)
        result.no_output = definition.output is None and not made
    except ReferenceFailure as error:
        result.status, result.codes = "failed", error.codes
    result.statuses = {path: status for path, status in result.statuses.items() if result.is_clear(path)}
    return result


# -- frames -----------------------------------------------------------------------------------------------


def _frame(steps: Steps, scope: Scope, path: str, result: Result) -> None:
    """Run all steps of a frame; raises Failed with everything that may have been the first to fail."""
    ended: dict[str, str] = {}
    failed: set[str] = set()
    stuck: set[str] = set()
    while True:
        found = next(
            (
                (name, fate)
                for name in steps
                if name not in ended and name not in stuck and (fate := _fate(steps, name, ended, scope))
            ),
            None,
        )
        if found is None:
            break
        name, fate = found
        where = f"{path}{name}"
        try:
            ended[name] = result.statuses[where] = _step(name, steps[name], fate, scope, where, result)
        except ReferenceFailure as error:
            failed |= error.codes
            stuck.add(name)
    if failed:
        raise ReferenceFailure(*failed)


def _fate(steps: Steps, name: str, ended: Mapping[str, str], scope: Scope) -> str:
    """run, skip, or "" while it is not decided."""
    step = steps[name]
    needs, waits = _sources(steps, name)
    if any(one not in ended for one in waits):
        return ""
    met = sum(_is_met(need, ended, scope) for need in needs)
    pending = sum(need.partition(":")[0] not in ended for need in needs)
    enough = len(needs)
    if step.join != "all":
        enough = step.join.quorum if isinstance(step.join, Quorum) else 1
    if met < enough and met + pending >= enough:
        return ""
    failing = _handled_by(steps, name)
    called = any(ended.get(one) == "caught" and scope["steps"][one]["then"] == name for one in failing)
    if failing and not called:
        return "" if any(one not in ended for one in failing) else "skip"
    return "run" if met >= enough else "skip"


def _is_met(need: str, ended: Mapping[str, str], scope: Scope) -> bool:
    source, _, branch = need.partition(":")
    if ended.get(source) != "completed":
        return False
    return not branch or scope["steps"][source].get("branch") == branch


def _handled_by(steps: Steps, name: str) -> list[str]:
    return [other for other, step in steps.items() if any(rule.then == name for rule in step.catch)]


def _sources(steps: Steps, name: str) -> tuple[list[str], list[str]]:
    """(needs: step or step:branch, waits) of a step, within its frame."""
    step = steps[name]
    inner = [one for _, one in _inside(step)]
    own = {id for id, _ in _inside(step)}
    needs = list(dict.fromkeys(step.needs))
    waits: list[str] = []
    switches = {need.partition(":")[0] for need in needs if ":" in need}
    for one in [step, *inner]:
        for source in _all_expressions(one):
            for reference in compile_expression(source).references:
                if reference.path[0] != "steps" or len(reference.path) < 2:
                    continue
                read = reference.path[1]
                if read in own or read not in steps or read in _handled_by(steps, name):
                    continue
                if step.join == "all" and not reference.optional:
                    if read not in needs and read not in switches:
                        needs.append(read)
                elif step.join == "all" or read not in {need.partition(":")[0] for need in needs}:
                    waits.append(read)
                elif one is step:
                    raise UnspecifiedMeaning(f"{name} reads {read}, and may start before it ends")
    for one in inner:
        for need in one.needs:
            source = need.partition(":")[0]
            if source in steps and source not in own and source not in needs:
                needs.append(source)
    return needs, waits


def _inside(step: Step) -> Iterator[tuple[str, Step]]:
    if isinstance(step, (MapStep, LoopStep)):
        for name, one in step.body.steps.items():
            yield name, one
            yield from _inside(one)


def _all_expressions(step: Step) -> Iterator[str]:
    """Of the step itself, without its body's steps."""
    if step.when is not None:
        yield step.when
    templates: list[Json] = [rule.value for rule in step.catch]
    match step:
        case TransformStep():
            templates.append(step.value)
        case SwitchStep():
            yield from (case.when for case in step.cases)
        case ToolStep():
            templates.append(step.args)
        case MapStep():
            yield step.over
            templates.append(step.body.output)
        case LoopStep():
            if step.until is not None:
                yield step.until
            templates += [step.init, step.carry, step.body.output]
    yield from (source for template in templates for _, source in expressions(template))


# -- steps ------------------------------------------------------------------------------------------------


def _step(name: str, step: Step, fate: str, scope: Scope, path: str, result: Result) -> str:
    """How the step ended; raises Failed."""
    if fate == "skip":
        scope["steps"][name] = {"status": "skipped", "model": ""}
        return "skipped"
    try:
        if step.when is not None and not _holds(step.when, scope):
            scope["steps"][name] = {"status": "skipped", "model": ""}
            return "skipped"
        facts = _work(step, scope, path, result)
    except ReferenceFailure as error:
        return _caught(name, step, error, scope)
    scope["steps"][name] = {"status": "completed", "model": "", **facts}
    return "completed"


def _caught(name: str, step: Step, error: ReferenceFailure, scope: Scope) -> str:
    rules = {_rule(step, code) for code in error.codes}
    if len(rules) > 1:
        raise UnspecifiedMeaning(f"{name} fails in several ways, which it does not catch alike")
    (at,) = rules
    if at is None:
        raise error
    rule, code = step.catch[at], "/".join(sorted(error.codes))
    if rule.then is not None:
        scope["steps"][name] = {"status": "caught", "error": {"code": code}, "then": rule.then, "model": ""}
        return "caught"
    value = _rendered(rule.value, scope)
    scope["steps"][name] = {"status": "completed", "output": value, "error": {"code": code}, "model": ""}
    return "completed"


def _rule(step: Step, code: str) -> int | None:
    return next((at for at, rule in enumerate(step.catch) if {code, "*"} & set(rule.errors)), None)


def _work(step: Step, scope: Scope, path: str, result: Result) -> dict[str, Any]:
    match step:
        case TransformStep():
            return {"output": _rendered(step.value, scope)}
        case SwitchStep():
            branch = next((case.then for case in step.cases if _holds(case.when, scope)), step.otherwise)
            return {"output": branch, "branch": branch}
        case ToolStep():
            return {"output": _tool(step, scope)}
        case MapStep():
            return _map(step, scope, path, result)
        case LoopStep():
            return _loop(step, scope, path, result)
    raise AssertionError(f"the reference does not know steps of kind {step.kind}")


def _tool(step: ToolStep, scope: Scope) -> Json:
    args = _rendered(step.args, scope)
    try:
        return _TOOLS[step.tool or ""](**args)
    except StepError as error:
        raise ReferenceFailure(error.code) from None


def _map(step: MapStep, scope: Scope, path: str, result: Result) -> dict[str, Any]:
    items = _value(step.over, scope)
    if not isinstance(items, list):
        raise ReferenceFailure("map_not_a_list")
    if len(items) > step.max_items:
        raise ReferenceFailure("map_too_wide")
    allowed: float = step.tolerate.failed or 0
    if step.tolerate.failed_percent is not None:
        allowed = len(items) * step.tolerate.failed_percent / 100
    found: list[dict[str, Any]] = []
    codes: set[str] = set()
    fatal: set[str] = set()
    for index, item in enumerate(items):
        here = {**scope, "steps": dict(scope["steps"]), "item": item, "index": index}
        try:
            _frame(step.body.steps, here, f"{path}[{index}].", result)
        except ReferenceFailure as error:
            codes |= error.codes
            result.unclear.append(f"{path}[{index}].")
            found.append({"status": "failed", "output": None})
            continue
        try:
            found.append({"status": "completed", "output": _total(step.body.steps, step.body.output, here)})
        except ReferenceFailure as error:
            # Its steps have completed, so it is no failed item, and nothing tolerates that.
            fatal |= error.codes
    if sum(item["status"] == "failed" for item in found) > allowed:
        fatal |= codes
    if fatal:
        result.unclear.append(f"{path}[")
        raise ReferenceFailure(*fatal)
    return {"output": [item["output"] for item in found], "items": found}


def _loop(step: LoopStep, scope: Scope, path: str, result: Result) -> dict[str, Any]:
    carry, previous = _rendered(step.init, scope), None
    for index in range(step.max_iterations):
        iteration = {"index": index, "carry": carry, "previous": previous}
        here = {**scope, "steps": dict(scope["steps"]), "iter": iteration}
        try:
            _frame(step.body.steps, here, f"{path}[{index}].", result)
        except ReferenceFailure:
            result.unclear.append(f"{path}[{index}].")
            raise
        output = _total(step.body.steps, step.body.output, here)
        here["iter"] = {**iteration, "output": output}
        _check_present(step.body.steps, [f"${{{step.until or 'true'}}}", step.carry], here)
        if step.until is not None and _holds(step.until, here):
            return {"output": output, "iterations": index + 1}
        if step.carry is not None:
            carry = _rendered(step.carry, here)
        previous = output
    if step.until is not None and step.on_exhausted == "fail":
        raise ReferenceFailure("loop_exhausted")
    return {"output": previous, "iterations": step.max_iterations}


def _total(steps: Steps, written: Json, scope: Scope) -> Json:
    """What a frame comes to."""
    if written is not None:
        _check_present(steps, [written], scope)
        return _rendered(written, scope)
    outputs = {name: scope["steps"][name].get("output") for name in _last(steps)}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _last(steps: Steps) -> list[str]:
    """The steps that no other uses."""
    used: set[str] = set()
    for name in steps:
        needs, waits = _sources(steps, name)
        used |= {need.partition(":")[0] for need in (*needs, *waits)}
    return [name for name in steps if name not in used]


def _check_present(steps: Steps, templates: list[Json], scope: Scope) -> None:
    """Raise Absent where an expression fails that reads the output of a step that has not completed."""
    for source in (source for template in templates for _, source in expressions(template)):
        paths = [one.path for one in compile_expression(source).references if not one.optional]
        read = [path[1] for path in paths if path[0] == "steps" and path[2:3] == ("output",)]
        absent = [one for one in read if one in steps and scope["steps"][one]["status"] != "completed"]
        if absent:
            try:
                evaluate(compile_expression(source), scope)
            except StepError:
                raise AbsentRead(f"{source!r} reads {', '.join(absent)}") from None


def _holds(source: str, scope: Scope) -> bool:
    value = _value(source, scope)
    if not isinstance(value, bool):
        raise ReferenceFailure("expression_failed")
    return value


def _value(source: str, scope: Scope) -> Json:
    try:
        return evaluate(compile_expression(source), scope)
    except StepError as error:
        raise ReferenceFailure(error.code) from None


def _rendered(template: Json, scope: Scope) -> Json:
    try:
        return render(template, scope)
    except StepError as error:
        raise ReferenceFailure(error.code) from None
