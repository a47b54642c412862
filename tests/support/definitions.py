"""Random definitions that run without models, people or networks: transforms, switches, maps, loops, quick
tools, handlers of errors and joins. Small on purpose: at most so many steps, few items and iterations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from schema.errors import InvalidDefinition
from schema.rules.validate import validate


@lru_cache(maxsize=256)
def _below(end: int) -> st.SearchStrategy[int]:
    """Made once each: making a strategy costs more than drawing from it."""
    return st.integers(0, end - 1)


Draw = Callable[[st.SearchStrategy[Any]], Any]
Definition = dict[str, Any]

MAX_ITEMS = 4
MAX_ITERATIONS = 3

_INPUT_SCHEMA = {
    "type": "object",
    "required": ["n", "flag", "list"],
    "properties": {
        "n": {"type": "integer"},
        "flag": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
    },
}


def inputs() -> st.SearchStrategy[dict[str, Any]]:
    """Inputs that fit every definition of `definitions`."""
    return st.fixed_dictionaries(
        {
            "n": st.integers(0, 4),
            "flag": st.booleans(),
            "list": st.lists(st.integers(0, 4), max_size=MAX_ITEMS + 1),
        }
    )


def definitions(max_steps: int = 12, max_depth: int = 2) -> st.SearchStrategy[Definition]:
    """Definitions that `validate` accepts. Their runs may complete or fail, and soon."""
    return drafts(max_steps, max_depth).filter(_is_fine)


def _is_fine(document: Definition) -> bool:
    """Whether all that is read when a frame has ended is there, and every step can run; whether anything else
    is wrong is not looked at here."""
    try:
        validate(document)
    except InvalidDefinition as error:
        return not {one.code for one in error.problems} <= {"reference_uncertain", "fields_conflict"}
    return True


@st.composite
def drafts(draw: Draw, max_steps: int = 12, max_depth: int = 2) -> Definition:
    """Definitions that may read what need not be there, or hold steps that can never run. Nothing else is
    wrong with them."""
    number = draw(st.integers(1, max_steps))
    maker = _Maker(draw, number, max_depth)
    steps = maker.frame(_Frame())
    definition: Definition = {"name": "random", "input": _INPUT_SCHEMA, "steps": steps}
    if draw(st.booleans()):
        names = list(steps)
        definition["output"] = {name: maker.at_end(name, names[0]) for name in names[-3:]}
    return definition


@st.composite
def flawed(draw: Draw, max_steps: int = 12, max_depth: int = 2) -> Definition:
    """Like `definitions`, with a step or two changed so that most must be refused."""
    definition: Definition = draw(drafts(max_steps, max_depth))
    found: list[tuple[dict[str, Any], str]] = []
    _collect(definition["steps"], found)
    names = [name for _, name in found]
    for _ in range(draw(st.integers(1, 2))):
        steps, name = draw(st.sampled_from(found))
        step, other = steps[name], draw(st.sampled_from([*names, "nowhere"]))
        flaw = draw(st.integers(0, 9))
        if flaw == 0:
            step["needs"] = [*step.get("needs", []), other]
        elif flaw == 1:
            step["needs"] = [*step.get("needs", []), f"{other}:a"]
        elif flaw == 2:
            step["when"] = f"steps.{other}.output == 1"
        elif flaw == 3:
            step["when"] = draw(
                st.sampled_from(["item == 1", "iter.output == 1", "output == 1", "1 +", "index"])
            )
        elif flaw == 4:
            step["catch"] = [{"errors": ["tool_faild"], "then": other}]
        elif flaw == 5:
            step["join"] = draw(st.sampled_from(["any", {"quorum": 3}, {"quorum": 0}, "some"]))
        elif flaw == 6:
            step["compensate"] = {"tool": "pause", "args": {"seconds": f"${{steps.{other}.output}}"}}
        elif flaw == 7:
            step[draw(st.sampled_from(["over", "until", "body", "retry", "chain", "for"]))] = True
        elif flaw == 8:
            step["kind"] = draw(st.sampled_from(["map", "loop", "human", "wait", "collaboration", "agent"]))
        else:
            definition["steps"][other] = step
    return definition


def _collect(steps: dict[str, Any], found: list[tuple[dict[str, Any], str]]) -> None:
    for name, step in steps.items():
        found.append((steps, name))
        if "body" in step:
            _collect(step["body"]["steps"], found)


def _hands_over(step: dict[str, Any], handler: str) -> bool:
    return any(rule.get("then") == handler for rule in step.get("catch", ()))


@dataclass(frozen=True)
class _Frame:
    """Where steps are being made, and what they may name."""

    owners: tuple[str, ...] = ()
    """Kinds of the maps and loops around it, outermost first."""
    around: list[str] = field(default_factory=list)
    """Steps that its bodies may read besides their own, if they are there."""


@dataclass
class _Maker:
    draw: Draw
    left: int
    """How many more steps may be made."""
    max_depth: int
    made: int = 0

    def chance(self, one_in: int) -> bool:
        return bool(self.draw(_below(one_in)) == one_in - 1)

    def pick(self, *options: Any) -> Any:
        return options[self.draw(_below(len(options)))]

    def frame(self, frame: _Frame) -> dict[str, Any]:
        steps: dict[str, Any] = {}
        width = self.pick(1, 2, 3) if frame.owners else self.left
        while self.left and len(steps) < width:
            self.left -= 1
            self.made += 1
            name = f"s{self.made}"
            steps[name] = self.step(name, steps, frame)
        return steps

    def step(self, name: str, earlier: dict[str, Any], frame: _Frame) -> dict[str, Any]:
        kinds = ["transform", "transform", "switch", "tool"]
        if self.left and len(frame.owners) < self.max_depth:
            kinds += ["map", "loop"]
        common = self.common(name, earlier)
        # Where some of the needs are enough, nothing else is sure to be there; and a step that failed has no
        # output for the one that takes over.
        sure = [] if "join" in common else [one for one in earlier if self.chance(3)]
        sure = [one for one in sure if not _hands_over(earlier[one], name)]
        # A body may start before all that its map or loop chooses from has ended.
        around = [*frame.around, *([] if "join" in common else earlier)]
        kind = self.pick(*kinds)
        make = {
            "transform": self.transform,
            "switch": self.switch,
            "tool": self.tool,
            "map": self.map,
            "loop": self.loop,
        }[kind]
        return {"kind": kind, **make(sure, list(earlier), _Frame(frame.owners, around)), **common}

    def common(self, name: str, earlier: dict[str, Any]) -> dict[str, Any]:
        """What every kind may have. May make this step the handler of an earlier one."""
        found: dict[str, Any] = {}
        needs = list(dict.fromkeys(self.need(one, earlier[one]) for one in earlier if self.chance(4)))
        if needs:
            found["needs"] = needs
            if self.chance(3):
                found["join"] = self.pick("any", {"quorum": self.draw(st.integers(1, len(needs)))})
        needed = {need.partition(":")[0] for need in needs}
        free = [one for one in earlier if "catch" not in earlier[one] and one not in needed]
        if free and self.chance(4):
            failing = self.pick(*free)
            code = self.pick("*", "expression_failed", "tool_failed", "map_too_wide", "loop_exhausted")
            earlier[failing]["catch"] = [{"errors": [code], "then": name}]
        if self.chance(8):
            found["catch"] = [{"errors": ["*"], "value": self.pick(None, 1, "instead", [1, 2])}]
        if self.chance(5):
            found["when"] = self.condition([], list(earlier))
        return found

    def need(self, name: str, step: dict[str, Any]) -> str:
        if step["kind"] == "switch" and self.chance(2):
            return f"{name}:{self.pick('a', 'b', 'c')}"
        return name

    def soft(self, name: str) -> str:
        return f"${{steps[?'{name}'].?output.orValue(0)}}"

    def at_end(self, name: str, other: str) -> str:
        """A step's output, as what is evaluated when its frame has ended may read it."""
        return str(
            self.pick(
                self.soft(name),
                f"${{steps.{name}.output}}",
                f"${{has(steps.{name}.output) ? steps.{name}.output : 0}}",
                f"${{steps[?'{name}'].?output.orValue(steps[?'{other}'].?output.orValue(0))}}",
            )
        )

    def value(self, sure: list[str], known: list[str], frame: _Frame) -> Any:
        """Any JSON; now and then one that fails."""
        options: list[Any] = [1, "text", [1, 2], {"a": 1}, "${input.n}", "${input.list}", "n is ${input.n}"]
        options += [f"${{steps.{name}.output}}" for name in sure]
        options += [self.soft(name) for name in dict.fromkeys((*known, *frame.around))]
        options += [f"${{{source}}}" for source in self.repeated(frame)]
        options += ["${10 / input.n}", "${list(input.list)[2]}"]
        return self.pick(*options)

    def repeated(self, frame: _Frame) -> list[str]:
        found = ["item", "index", "index + 1"] if "map" in frame.owners else []
        return found + (["iter.index", "iter.carry", "iter.previous"] if "loop" in frame.owners else [])

    def condition(self, sure: list[str], known: list[str]) -> str:
        options = [
            "input.flag",
            "input.n > 1",
            "true",
            "false",
            "input.list.exists(i, i == 2)",
            "1 / input.n > 0",
        ]
        options += [f"steps.{name}.status == 'completed'" for name in sure]
        options += [f"steps[?'{name}'].?output.orValue(0) == 1" for name in known]
        return str(self.pick(*options))

    def transform(self, sure: list[str], known: list[str], frame: _Frame) -> dict[str, Any]:
        values = [self.value(sure, known, frame) for _ in range(self.pick(1, 2, 3))]
        return {"value": values[0] if len(values) == 1 else values}

    def switch(self, sure: list[str], known: list[str], frame: _Frame) -> dict[str, Any]:
        cases = [{"when": self.condition(sure, known), "then": label} for label in ("a", "b")]
        return {"cases": cases, "else": "c"}

    def tool(self, sure: list[str], known: list[str], frame: _Frame) -> dict[str, Any]:
        text = f'{{"n": {self.value(sure, known, frame)}}}'
        found: dict[str, Any] = self.pick(
            {"tool": "json.parse", "args": {"text": self.pick("[1, 2]", "not JSON", text)}},
            {"tool": "text.code_blocks", "args": {"text": "x ${input.n}"}},
            {"tool": "text.diff", "args": {"before": "${string(input.n)}", "after": "b"}},
            {"tool": "pause", "args": {"seconds": 0}},
        )
        return found

    def map(self, sure: list[str], known: list[str], frame: _Frame) -> dict[str, Any]:
        found = {
            "over": self.pick("input.list", "[1, 2, 3]", "[]", "list(input.list).map(i, i * 2)", "input.n"),
            "max_items": self.draw(st.integers(1, MAX_ITEMS)),
            "concurrency": self.draw(st.integers(1, 3)),
            "body": self.body("map", frame),
        }
        if self.chance(2):
            found["tolerate"] = self.pick({"failed": 1}, {"failed": 4}, {"failed_percent": 50}, {})
        return found

    def loop(self, sure: list[str], known: list[str], frame: _Frame) -> dict[str, Any]:
        found: dict[str, Any] = {
            "max_iterations": self.draw(st.integers(1, MAX_ITERATIONS)),
            "init": self.value(sure, known, frame),
            "body": self.body("loop", frame),
        }
        names = list(found["body"]["steps"])
        name, other = names[0], names[-1]
        if self.chance(2):
            carried = ["${iter.index}", "${iter.output}", [1, "${iter.carry}"]]
            found["carry"] = self.pick(*carried, self.at_end(name, other))
        if self.chance(2):
            held = ["iter.index >= 1", "iter.output == 1", "iter.carry == 0", "input.flag"]
            found["until"] = self.pick(
                *held, f"steps.{name}.output == 1", f"steps.{name}.status == 'skipped'"
            )
            found["on_exhausted"] = self.pick("continue", "fail")
        return found

    def body(self, kind: str, frame: _Frame) -> dict[str, Any]:
        inner = _Frame((*frame.owners, kind), frame.around)
        steps = self.frame(inner)
        body: dict[str, Any] = {"steps": steps}
        if self.chance(2):
            body["output"] = self.pick(
                *(self.at_end(name, next(iter(steps))) for name in steps), *self.bare(inner)
            )
        return body

    def bare(self, frame: _Frame) -> list[Any]:
        return [1, *(f"${{{source}}}" for source in self.repeated(frame))]
