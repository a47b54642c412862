"""The text of an answer: a function of the seed, the model, the messages and the response format."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from infra.simulator.conform import conforming
from infra.simulator.flaws import FLAWS, Finding, Flaw, cure, find_flaws
from infra.simulator.hints import hints_for
from infra.simulator.prompt import ReadPrompt, Role, read_prompt
from infra.simulator.review import review_of
from infra.simulator.tools import results_in

TOKEN: Final = re.compile(r"\s*\w{1,8}|\s*[^\w\s]{1,3}|\s+")
# The schema that a planner is given carries this title.
PLAN_TITLE: Final = "Facilitair definition"
# A refiner hands back all of a short text and only the surroundings of its changes in a long one.
MAX_REWRITE_LINES: Final = 80
# What a design with holes costs in the chance of code without a fault.
HOLES: Final = 0.19
WRITABLE_FLAWS: Final = tuple(flaw for flaw in FLAWS if flaw.sample)


def answer_text(
    seed: int, model: str, messages: Sequence[Mapping[str, object]], response_format: object = None
) -> str:
    """The whole answer to a request."""
    prompt = read_prompt(seed, model, messages, response_format)
    schema = _json_schema(response_format)
    if schema is None:
        return "\n\n".join([*results_in(messages), role_text(prompt)])
    if schema.get("title") == PLAN_TITLE:
        return json.dumps(_plan(prompt), ensure_ascii=False, indent=2)
    value = conforming(schema, prompt.draw("json"), hints_for(prompt, role_text))
    return json.dumps(value, ensure_ascii=False, indent=2)


def split_tokens(text: str) -> list[str]:
    """The pieces in which an answer is streamed and billed; joined they are the text again."""
    return TOKEN.findall(text)


def count_input_tokens(messages: Sequence[Mapping[str, object]], tools: object = None) -> int:
    """About four characters to the token and four tokens to the message; prompts are too long to split.

    What a model asked of its tools counts like text, and so does the list of its tools.
    """
    parts = [part for m in messages for part in (m.get("content"), m.get("tool_calls")) if part or part == ""]
    parts += tools if isinstance(tools, list) else []
    return 4 * len(messages) + sum((len(json.dumps(part, ensure_ascii=False)) + 3) // 4 for part in parts)


def role_text(prompt: ReadPrompt, role: Role | None = None) -> str:
    """Free text in the manner of a role, by default the one that the prompt asks for."""
    return _WRITERS[role or prompt.role](prompt)


def _json_schema(response_format: object) -> Mapping[str, object] | None:
    if not isinstance(response_format, Mapping):
        return None
    match response_format.get("type"):
        case "json_schema":
            named = response_format.get("json_schema")
            schema = named.get("schema") if isinstance(named, Mapping) else None
            return schema if isinstance(schema, Mapping) else {"type": "object"}
        case "json_object":
            return {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
        case _:
            return None


def _plan(prompt: ReadPrompt) -> dict[str, object]:
    """A definition: two parts of the work side by side, and a review of both."""
    first, second, _ = _three(prompt)
    topic = prompt.topic.replace("$", "")
    review = "Review both parts:\n${steps.first_part.output}\n${steps.second_part.output}"
    return {
        "name": "plan",
        "description": f"A plan for: {topic}"[:200],
        "agents": {"worker": {"role": "coder"}, "critic": {"role": "reviewer"}},
        "steps": {
            "first_part": {"kind": "agent", "agent": "worker", "prompt": f"{topic}: the {first}."},
            "second_part": {"kind": "agent", "agent": "worker", "prompt": f"{topic}: the {second}."},
            "review": {"kind": "agent", "agent": "critic", "prompt": review},
        },
        "output": {
            "parts": ["${steps.first_part.output}", "${steps.second_part.output}"],
            "review": "${steps.review.output}",
        },
    }


def _architect(prompt: ReadPrompt) -> str:
    draw = prompt.draw("architect")
    first, second, third = _three(prompt)
    lines = [
        f"# Design: {prompt.topic}",
        "",
        "## Parts",
        f"- `{_class_name(prompt)}`: owns the {first}; the only writer of its state.",
        f"- a thin boundary that checks {second} before anything is stored.",
        f"- a record of every {third}, so that a failure can be explained afterwards.",
        "",
        "## Data",
        f"One table keyed by {first}; values are immutable once written.",
        "",
        "## Risks",
        f"- two callers change the same {first} at once: serialise by key.",
        f"- {second} arrives twice: make the write idempotent.",
    ]
    if draw.random() > prompt.skill:
        lines.append(f"- limits for {third}: TBD")
    lines += ["", "## Order of work", f"1. shapes and errors 2. {first} 3. {second} 4. tests for {third}"]
    return "\n".join(lines)


def _coder(prompt: ReadPrompt) -> str:
    draw = prompt.draw("coder")
    # A design with holes makes faults likelier: this is how an architect's skill reaches the code.
    holes = HOLES if any(f.code == "undecided" for f in find_flaws(prompt.text)) else 0.0
    count = sum(draw.random() > prompt.skill - holes for _ in range(3))
    return _as_block(_module(prompt, draw.sample(WRITABLE_FLAWS, count)))


def _module(prompt: ReadPrompt, flaws: Sequence[Flaw]) -> str:
    first, second, _ = _three(prompt)
    body = [f"        {line}" for flaw in flaws for line in flaw.sample.splitlines()]
    topic = prompt.topic.replace('"', "'").replace("\\", "/")
    return "\n".join(
        [
            f'"""{topic[:80]}."""',
            "",
            "from dataclasses import dataclass, field",
            "",
            "",
            "@dataclass",
            f"class {_class_name(prompt)}:",
            f'    """Keeps the {first} and answers for the {second}."""',
            "",
            "    limit: int = 100",
            "    totals: dict[str, int] = field(default_factory=dict)",
            "    history: list[int] = field(default_factory=list)",
            "",
            f"    def add_{_name(first)}(self, key: str, amount: int = 1) -> int:",
            f'        """Count `amount` for `key`; refuse what would pass the limit of {second}."""',
            *body,
            "        total = self.totals.get(key, 0) + amount",
            "        if total > self.limit:",
            f'            raise ValueError(f"{first} {{key!r}} would reach {{total}}, limit {{self.limit}}")',
            "        self.totals[key] = total",
            "        self.history.append(amount)",
            "        return total",
        ]
    )


def _reviewer(prompt: ReadPrompt) -> str:
    review = review_of(prompt)
    lines = [review.summary, ""]
    for number, finding in enumerate(review.findings, start=1):
        lines.append(f"{number}. [{finding.severity}] {_place(finding)}{finding.message}; {finding.fix}.")
        if finding.quote:
            lines.append(f"   `{finding.quote}`")
    if not review.findings:
        quoted = [line.strip() for line in prompt.code.splitlines() if len(line.strip()) > 15][:2]
        lines += [f"- `{line[:100]}` does what it says." for line in quoted]
        lines.append(f"- the {_three(prompt)[0]} is checked where it enters.")
    lines += ["", f"found_issues: {str(review.found_issues).lower()}", f"quality: {review.quality}"]
    return "\n".join(lines)


def _refiner(prompt: ReadPrompt) -> str:
    draw = prompt.draw("refiner")
    source = prompt.code or prompt.text
    codes = sorted({flaw.code for flaw in find_flaws(source)})
    if not prompt.code:
        return cure(_architect(prompt), {"undecided"})
    # At least one is repaired, or a loop of review and repair would stand still for ever.
    repaired = {code for code in codes if draw.random() < prompt.skill} or set(codes[:1])
    before, after = source.splitlines(), cure(source, repaired).splitlines()
    note = f"Repaired: {', '.join(sorted(repaired))}." if repaired else "Nothing left to repair."
    if len(after) > MAX_REWRITE_LINES:
        changed = [i for i, (old, new) in enumerate(zip(before, after, strict=False)) if old != new] or [0]
        keep = {line for i in changed[:6] for line in range(max(0, i - 4), i + 5)}
        after = [line for i, line in enumerate(after) if i in keep]
    return f"{_as_block(chr(10).join(after).strip(chr(10)))}\n\n{note}"


def _tester(prompt: ReadPrompt) -> str:
    names = prompt.identifiers or (_class_name(prompt), f"add_{_name(_three(prompt)[0])}")
    first, second, third = _three(prompt)
    lines = ["import pytest", "", f"from {_name(first)} import {names[0]}", ""]
    for name in names[:3]:
        lines += [
            "",
            f"def test_{name.lower()}_refuses_an_empty_{_name(second)}() -> None:",
            "    with pytest.raises(ValueError):",
            f'        {name}("")',
            "",
        ]
    lines += [
        "",
        f"def test_{_name(first)}_and_{_name(third)}_agree() -> None:",
        f"    subject = {names[0]}",
        "    assert subject is not None",
    ]
    return _as_block("\n".join(lines))


def _documenter(prompt: ReadPrompt) -> str:
    first, second, third = _three(prompt)
    name = prompt.identifiers[0] if prompt.identifiers else _class_name(prompt)
    return "\n".join(
        [
            f"# {prompt.topic}",
            "",
            f"`{name}` keeps the {first}. Each call says which {second} it is for;",
            f"what would pass the limit is refused with an error that names the {third}.",
            "",
            "## Example",
            "",
            _as_block(f"subject = {name}()\nprint(subject)  # the state of the {first}"),
            "",
            "## Limits",
            "",
            f"State is kept in memory: after a restart the {first} starts from nothing.",
        ]
    )


def _optimizer(prompt: ReadPrompt) -> str:
    name = prompt.identifiers[0] if prompt.identifiers else _class_name(prompt)
    percent = int(10 + prompt.skill * 50)
    first, second, _ = _three(prompt)
    return "\n".join(
        [
            f"The time of `{name}` goes into repeated look-ups of {first}.",
            "",
            f"1. Look up each {first} once per call and keep it in a local name.",
            f"2. Replace the list of {second} by a set: membership becomes constant time.",
            "3. Read the clock once per batch.",
            "",
            f"Expected: about {percent}% less time per call (the simulator guesses; nothing was measured).",
        ]
    )


def _writer(prompt: ReadPrompt) -> str:
    first, second, third = _three(prompt)
    draw = prompt.draw("writer")
    reasons = [
        f"The {first} decides: without it the {second} cannot be judged.",
        f"What is known about {third} fits both readings, so the cheaper one comes first.",
        f"If the {second} grows tenfold, only the {first} has to change.",
        f"A small trial with a real {third} would settle the open part.",
        f"Nothing here forbids to change the {second} later.",
        f"Who owns the {third} should say so before the {first} is built.",
        f"The usual objection is the cost of the {second}; it is small beside a wrong {first}.",
        f"Measured by {third}, both ways end at the same place.",
    ]
    draw.shuffle(reasons)
    kept = reasons[: min(len(reasons), max(1, round(3.6 * prompt.length)))]
    return "\n".join(
        [f"On {prompt.topic}:", "", *(f"- {r}" for r in kept), "", f"In short: begin with the {first}."]
    )


def _as_block(code: str) -> str:
    return f"```python\n{code}\n```"


def _three(prompt: ReadPrompt) -> tuple[str, str, str]:
    words = (*prompt.words, "request", "caller", "result")
    return words[0], words[1], words[2]


def _name(word: str) -> str:
    return re.sub(r"\W+", "_", word.lower())


def _class_name(prompt: ReadPrompt) -> str:
    return "".join(word.capitalize() for word in prompt.words[:2])


def _place(finding: Finding) -> str:
    if not finding.line:
        return ""
    return f"{finding.file}:{finding.line}: " if finding.file else f"line {finding.line}: "


_WRITERS: Final[Mapping[Role, Callable[[ReadPrompt], str]]] = {
    "architect": _architect,
    "coder": _coder,
    "reviewer": _reviewer,
    "refiner": _refiner,
    "tester": _tester,
    "documenter": _documenter,
    "optimizer": _optimizer,
    "writer": _writer,
}
