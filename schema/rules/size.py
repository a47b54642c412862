"""Estimate the size of a run before it starts: unbounded definitions are refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, assert_never

from schema.cel.expressions import Json, compile_expression, evaluate
from schema.errors import StepError
from schema.language.catalogue import BUILT_IN, ROUTABLE_MODELS, Catalogue
from schema.language.definition import Definition
from schema.language.dependencies import walk
from schema.language.problems import Problems
from schema.language.skills import Skill
from schema.language.steps import (
    Agent,
    AgentStep,
    CollaborationStep,
    HumanStep,
    LoopStep,
    MapStep,
    Route,
    Step,
    SwitchStep,
    ToolStep,
    TransformStep,
    Verify,
    WaitStep,
)
from schema.language.streams import most_turns, streams_of
from schema.language.templates import as_text, expressions
from schema.language.tools import TOOLS

MAX_EXECUTIONS: Final = 200_000
"""Steps that one run may execute, repetitions counted."""
MAX_TREE_CHILDREN: Final = 10_000
"""Sub-collaborations that one run may begin, those within them counted."""
MAX_TREE_EXECUTIONS: Final = 2_000_000
"""Steps that one run and all sub-collaborations within it may execute, repetitions counted."""
EVENTS_PER_HISTORY: Final = 10_000
"""After so many events a run continues as new."""

_ACTIVITY: Final = 6
_QUICK: Final = 1
_HUMAN: Final = 10
_CHILD: Final = 6
_WAIT: Final = 3
_REPETITION: Final = 2
"""Events of one item or iteration apart from its steps, and of a map or loop apart from its repetitions."""

_CHARS_PER_TOKEN: Final = 3
_OUTPUT_TOKENS: Final = 4_096
"""Tokens of an answer without max_output_tokens, and of each value that a prompt reads."""

Prices = Callable[[str], tuple[Decimal, Decimal] | None]
"""model → dollars per input token and per output token, or None when unknown."""


@dataclass(frozen=True, slots=True)
class TreeSize:
    """Upper bounds of a run and all sub-collaborations within it, retries apart."""

    executions: int
    children: int


@dataclass(frozen=True, slots=True)
class RunSize:
    """Upper bounds of one run, retries apart."""

    executions: int
    events: int
    continued: int
    """Times that it continues as new, because of them."""
    model_calls: int
    children: int
    """Sub-collaborations, whose own steps are not counted in."""
    usd: Decimal | None
    """Without sub-collaborations; None when no prices are given, or one is missing. A guess where prompts
    read values whose size only the run will show, or an input that is not given."""
    tree: TreeSize
    """With the sub-collaborations whose size is known, and all within them."""


@dataclass(slots=True)
class _Sum:
    executions: int = 0
    events: int = 0
    model_calls: int = 0
    children: int = 0
    usd: Decimal | None = Decimal(0)
    executions_within: int = 0
    """Executions of sub-collaborations."""
    children_within: int = 0

    @property
    def tree(self) -> TreeSize:
        return TreeSize(self.executions + self.executions_within, self.children + self.children_within)

    def add(self, other: "_Sum", times: int = 1) -> None:
        self.executions += other.executions * times
        self.events += other.events * times
        self.model_calls += other.model_calls * times
        self.children += other.children * times
        self.executions_within += other.executions_within * times
        self.children_within += other.children_within * times
        self.usd = None if self.usd is None or other.usd is None else self.usd + other.usd * times


@dataclass(frozen=True, slots=True)
class _Basis:
    """The basis on which steps are counted."""

    definition: Definition
    turns: Mapping[str, int]
    """Step → how often it answers, at most, while it reads others live."""
    prices: Prices | None = None
    catalogue: Catalogue = BUILT_IN
    input: Json = None
    """Input of the run, if known."""
    within: Mapping[str, TreeSize] = field(default_factory=dict)
    """ref of a sub-collaboration → how large it can become, where that is known."""


def estimate(
    definition: Definition,
    prices: Prices | None = None,
    catalogue: Catalogue = BUILT_IN,
    input: Json = None,
    within: Mapping[str, TreeSize] | None = None,
) -> RunSize:
    """Return the upper bounds of one run of a valid definition. `within` holds the size of what its
    refs name."""
    basis = _Basis(definition, _turns(definition), prices, catalogue, input, within or {})
    total = _total(basis, definition.steps)
    usd = total.usd if prices else None
    budget = definition.budget
    if usd is not None and budget and budget.usd is not None and budget.on_exceed == "stop":
        usd = min(usd, Decimal(str(budget.usd)))
    return RunSize(
        total.executions,
        total.events,
        total.events // EVENTS_PER_HISTORY,
        total.model_calls,
        total.children,
        usd,
        total.tree,
    )


def check_size(definition: Definition, problems: Problems) -> None:
    """Refuse what could run for ever in all but name."""
    basis = _Basis(definition, _turns(definition))
    whole = _total(basis, definition.steps).executions
    if whole <= MAX_EXECUTIONS:
        return
    problems.add(
        "too_large_run",
        _largest(basis, lambda size: size.executions),
        f"up to {whole:,} executions of steps in one run",
        f"at most {MAX_EXECUTIONS:,}, repetitions counted",
        "Lower max_items or max_iterations, or let the body run a collaboration of its own.",
    )


def tree_size(definition: Definition, within: Mapping[str, TreeSize]) -> TreeSize:
    """Return how large the runs that one start of a valid definition leads to can become together."""
    basis = _Basis(definition, _turns(definition), within=within)
    return _total(basis, definition.steps).tree


def check_tree(definition: Definition, within: Mapping[str, TreeSize], problems: Problems) -> None:
    """Refuse what multiplies: repetitions of sub-collaborations which repeat others in their turn."""
    basis = _Basis(definition, _turns(definition), within=within)
    size = _total(basis, definition.steps).tree
    if not is_too_large(size):
        return
    by_children = size.children > MAX_TREE_CHILDREN
    culprit = _largest(basis, lambda one: one.tree.children if by_children else one.tree.executions)
    problems.add("too_large_tree", culprit, *tree_fault(size))


def is_too_large(size: TreeSize) -> bool:
    """Tell whether a run could begin more than one start may lead to."""
    return size.children > MAX_TREE_CHILDREN or size.executions > MAX_TREE_EXECUTIONS


def tree_fault(size: TreeSize) -> tuple[str, str, str]:
    """Return what is found, what is expected and what to do where a tree of runs is too large."""
    return (
        f"up to {_figure(size.children)} sub-collaborations and {_figure(size.executions)} executions of "
        "steps by one start, those within each other multiplied",
        f"at most {MAX_TREE_CHILDREN:,} and {MAX_TREE_EXECUTIONS:,}",
        "Lower max_items or max_iterations here or in what the refs name.",
    )


def _figure(number: int) -> str:
    """Write a number of any size in a few characters."""
    return f"{number:,}" if number < 10**12 else f"10^{len(str(number)) - 1}"


def _largest(basis: _Basis, measure: Callable[[_Sum], int]) -> str:
    """Return the pointer of the top-level step that adds most."""
    sizes = {
        pointer: measure(_step(basis, name, step))
        for pointer, name, step, owner in walk(basis.definition.steps)
        if not owner
    }
    return max(sizes, key=sizes.__getitem__)


def _turns(definition: Definition) -> dict[str, int]:
    streams = streams_of(definition.stream)
    return {name: most_turns(streams.read_by(name)) for name in streams.live}


def _total(basis: _Basis, steps: Mapping[str, Step]) -> _Sum:
    total = _Sum()
    for name, step in steps.items():
        total.add(_step(basis, name, step))
    return total


def _step(basis: _Basis, name: str, step: Step) -> _Sum:
    match step:
        case AgentStep():
            agent = basis.definition.agents[step.agent]
            rounds = agent.max_tool_rounds if _has_tools(agent, basis.catalogue) else 0
            verify = agent.model.verify if isinstance(agent.model, Route) else None
            answers = 1 + _further_answers(step) + _answers_anew(agent) + basis.turns.get(name, 0)
            calls = answers * (1 + rounds)
            usd = _cost_of_call(agent, step, rounds, basis)
            usd = None if usd is None else usd * calls
            if verify:
                calls += 1
                cost = _cost_of_verdict(verify, agent, step, basis)
                usd = None if usd is None or cost is None else usd + cost
            if usd is not None and step.budget and step.budget.usd is not None:
                usd = min(usd, Decimal(str(step.budget.usd)))
            return _Sum(1, _ACTIVITY, calls, 0, usd)
        case ToolStep():
            quick = step.tool is not None and TOOLS[step.tool].quick
            return _Sum(1, _QUICK if quick else _ACTIVITY)
        case TransformStep() | SwitchStep():
            return _Sum(1, _QUICK)
        case MapStep() | LoopStep():
            times = step.max_items if isinstance(step, MapStep) else step.max_iterations
            whole = _Sum(1, _REPETITION + _REPETITION * times)
            whole.add(_total(basis, step.body.steps), times)
            return whole
        case HumanStep():
            return _Sum(1, _HUMAN)
        case CollaborationStep():
            # What an agent will plan is of unknown size: it is checked when it has been planned.
            inner = basis.within.get(step.ref or "", TreeSize(0, 0))
            return _Sum(1, _CHILD, 0, 1, executions_within=inner.executions, children_within=inner.children)
        case WaitStep():
            return _Sum(1, _WAIT)
        case _:
            assert_never(step)


def _further_answers(step: AgentStep) -> int:
    """Return how often an answer that does not fit may be asked for again."""
    if step.reflect is not None:
        return step.reflect.max
    return 2 if step.output_schema is not None or step.emits is not None else 0


def _answers_anew(agent: Agent) -> int:
    """Return how often a routing rule may have a step answered anew: by a stronger model, without a limit."""
    if not isinstance(agent.model, Route):
        return 0
    return (agent.model.verify is not None) + (agent.model.reasoning is not None)


# What a tenant has removed since the upload is left out here: the run itself will say so.


def _skills(agent: Agent, catalogue: Catalogue) -> list[Skill]:
    role = catalogue.roles.get(agent.role or "")
    names = dict.fromkeys((*(role.skills if role else ()), *agent.skills))
    return [catalogue.skills[name] for name in names if name in catalogue.skills]


def _has_tools(agent: Agent, catalogue: Catalogue) -> bool:
    return bool(agent.tools) or any(skill.tools for skill in _skills(agent, catalogue))


def _cost_of_call(agent: Agent, step: AgentStep, rounds: int, basis: _Basis) -> Decimal | None:
    """Dollars of one call of the dearest model that may answer."""
    if basis.prices is None:
        return None
    role = basis.catalogue.roles.get(agent.role or "")
    if isinstance(agent.model, Route):
        models = agent.model.among or list(ROUTABLE_MODELS)
        if agent.model.verify and agent.model.verify.then:
            models = [*models, agent.model.verify.then]
    else:
        models = [agent.model or (role.model if role else "")]
    system = len(agent.system if agent.system is not None else (role.system if role else ""))
    system += sum(len(skill.instructions) for skill in _skills(agent, basis.catalogue))
    tokens_in = _prompt_tokens(step, system, basis) + rounds * _OUTPUT_TOKENS
    tokens_out = agent.max_output_tokens or _OUTPUT_TOKENS
    return _dearest((*models, *agent.fallback), tokens_in, tokens_out, basis.prices)


def _cost_of_verdict(verify: Verify, agent: Agent, step: AgentStep, basis: _Basis) -> Decimal | None:
    """Dollars of the call that judges an answer."""
    if basis.prices is None:
        return None
    role = basis.catalogue.roles.get(verify.by)
    model = role.model if role else verify.by
    answer = agent.max_output_tokens or _OUTPUT_TOKENS
    tokens_in = _prompt_tokens(step, len(role.system) if role else 0, basis) + answer
    return _dearest([model], tokens_in, _OUTPUT_TOKENS, basis.prices)


def _prompt_tokens(step: AgentStep, system_chars: int, basis: _Basis) -> int:
    read = sum(_tokens_of(source, basis.input) for _, source in expressions(step.prompt))
    return (system_chars + len(step.prompt)) // _CHARS_PER_TOKEN + read


def _dearest(models: Sequence[str], tokens_in: int, tokens_out: int, prices: Prices) -> Decimal | None:
    costs: list[Decimal] = []
    for model in models:
        price = prices(model)
        if price is None:
            return None
        costs.append(price[0] * tokens_in + price[1] * tokens_out)
    return max(costs)


def _tokens_of(source: str, input: Json) -> int:
    """Return the tokens of a value in a prompt; known only if it comes from a known input alone."""
    expression = compile_expression(source)
    if input is None or any(reference.path[0] != "input" for reference in expression.references):
        return _OUTPUT_TOKENS
    try:
        return len(as_text(evaluate(expression, {"input": input}))) // _CHARS_PER_TOKEN + 1
    except StepError:
        return _OUTPUT_TOKENS
