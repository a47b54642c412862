"""Skills that every installation has: nine that the seed names (S1-37), two of its groups, six of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Skill:
    """An ability that an agent can be given (S1-37)."""

    description: str
    instructions: str
    """They follow the system prompt."""
    tools: tuple[str, ...] = ()
    """Built-in tools that come with it."""


# The seed gives nine names and a few words to each; what they tell an agent is ours.
_NAMED: Final[Mapping[str, Skill]] = {
    "agentdb-advanced": Skill(
        "Keep what several nodes or agents know in step.",
        "Where state is kept in more than one place, say for each piece: who may write it, what happens when "
        "two write at once, and how long a reader may see an old value.\n"
        "Give each change an id, so that applying it twice changes nothing. Prefer a log that can be read "
        "again to messages that can be lost. Name the case of a cut network, and what is given up in it.",
    ),
    "agentdb-learning": Skill(
        "Turn a task that repeats into one that is learned from its outcomes.",
        "State what is observed, what can be chosen, what counts as success and when it is known.\n"
        "Write down the chance with which each choice was made; without it nothing can be learned honestly "
        "later. Always compare with fixed baselines: always cheap, always strong, random. Split training and "
        "test by time, and report how many examples each figure rests on. Say when there are too few.",
    ),
    "agentdb-memory-patterns": Skill(
        "Keep what was learned so that it can be found and used again.",
        "When something worked, or failed in an instructive way, write a pattern of five lines: the problem, "
        "where it holds, what was done, the evidence, and when not to use it.\n"
        "Before you solve, look among the past work you are shown for a pattern that holds here; say which "
        "one you use and what differs. A pattern that is similar is a hint, never the answer.",
    ),
    "agentdb-optimization": Skill(
        "Make a store of data or vectors faster and smaller without making it wrong.",
        "Measure first: the slow queries, their plans, rows read against rows returned, bytes per entry.\n"
        "Then in this order: an index that serves the query, fewer round trips, batches, less data per row, "
        "quantisation last. For each step give the figure before and after, and for anything approximate the "
        "recall against the exact answer. Undo what brings less than a tenth.",
    ),
    "agentdb-vector-search": Skill(
        "Find what is similar, and know how far to trust it.",
        "Say which text is embedded, by which model, and which distance is used; normalise vectors before a "
        "dot product is taken for a cosine.\n"
        "Choose the threshold from labelled pairs, not by feel: a cosine of 0.85 is wrong in about one case "
        "of four. Combine with filters on hard facts such as tenant, language and date. Report recall at k "
        "against an exact search over the same data.",
    ),
    "swarm-orchestration": Skill(
        "Divide work among agents and put it together again.",
        "Split the task into parts that can be finished and checked alone; give each part one owner, its "
        "input, its output and how it is judged.\n"
        "Mark what really depends on what; everything else runs at the same time. Bound every loop. Say how "
        "results are merged, who decides where they contradict each other, and what is delivered when one "
        "part fails.",
    ),
    "hive-mind-advanced": Skill(
        "Come to one result from several independent opinions.",
        "Judge each opinion by its reasons before you look at how many share it; opinions that rest on the "
        "same source count once.\n"
        "List where they agree, where they contradict each other, and what would settle it. Decide, with how "
        "sure you are in words and as a number from 0 to 1. Keep the strongest dissent in the answer: a "
        "minority that is right is the reason to ask several.",
    ),
    "performance-analysis": Skill(
        "Find out why something is slow or dear, with figures.",
        "Ask for or state: the load, the data's size, the machine, and what was measured how often.\n"
        "Report p50, p95 and p99, never the mean alone, and throughput beside latency. Take the time apart "
        "until one part explains most of it; name the bottleneck and the evidence. Propose at most three "
        "changes, each with the gain you expect and how to check it. Separate what was measured from what "
        "you suppose.",
    ),
    "hooks-automation": Skill(
        "Put checks and follow-ups around work, so that nobody has to remember them.",
        "For each point (before a task, after an edit, after a task, at the end) say what must be true there "
        "and what is done when it is not.\n"
        "A hook is quick, can run twice without harm, and says in one line why it stops something. It never "
        "hides a failure. Prefer a check that prevents to one that reports.",
    ),
}

# Of groups of the seed whose members it does not name: one each where it says enough of the work.
_OF_GROUPS: Final[Mapping[str, Skill]] = {
    "github-pull-requests": Skill(
        "Write and judge changes as pull requests.",
        "One pull request, one thought: say why it is needed, what changes for users, how it was tested, and "
        "how it can be undone. Title in the imperative, at most 70 characters.\n"
        "As a reviewer quote file and line, separate what must change from what could, and say what is good "
        "only where it teaches something.",
        ("text.diff",),
    ),
    "ran-optimization": Skill(
        "Propose changes to the parameters of a radio access network.",
        "Name the cells, the parameter, its present and proposed value, and the KPI that shall improve; give "
        "the KPIs that must not get worse, such as accessibility, drop rate and handover success.\n"
        "Tell cause from coincidence: time of day, traffic and neighbours change too, so ask for a control "
        "group of cells. Change one thing at a time, within the vendor's limits, with a criterion for going "
        "back and the time after which it is judged.",
    ),
}

_OF_SOFTWARE: Final[Mapping[str, Skill]] = {
    "python-checks": Skill(
        "Check Python by static analysis before it is handed on.",
        "Before you answer with Python, check it with the tool and repair what it finds. Mention a finding "
        "that you leave, and why. The tool does not run the code: also reason about empty input, errors and "
        "large input.",
        ("python.check",),
    ),
    "security-review": Skill(
        "Find what an attacker could use.",
        "Follow every value that comes from outside to where it has an effect: queries, commands, paths, "
        "addresses, templates, deserialisation, pages. Check who may do what, also for objects of others, "
        "and where secrets appear in code, logs and errors.\n"
        "Report each finding with its place, how it is used in one concrete request, its severity and the "
        "smallest repair. No finding without a way to use it.",
    ),
    "test-design": Skill(
        "Write the tests that would catch the likely faults.",
        "List first what could be wrong: limits, empty and huge values, order, time zones, two at once, "
        "failure half way, doing it twice. One test for each, named for what it shows.\n"
        "Compare whole values. Use no sleeps and no chance without a seed. A test that cannot fail is left "
        "out.",
    ),
    "debugging": Skill(
        "Find the cause of a fault before anything is changed.",
        "State what happened, what was expected, and the smallest input that shows it. List the causes that "
        "fit all observations, and for each an observation that would rule it out; start with the cheapest.\n"
        "Change nothing before the cause is shown. Then repair the cause and not the symptom, say which "
        "other places share it, and add the test that would have caught it.",
    ),
    "api-design": Skill(
        "Design interfaces that are hard to use wrongly.",
        "Begin with what callers want to do, in their words, and write three example calls before types.\n"
        "Make repeated calls safe, page every list, give every error a stable code and a sentence on what to "
        "do. Say what may change later without breaking anybody. Leave out what nobody needs yet.",
    ),
    "small-changes": Skill(
        "Change existing work as little as the purpose allows.",
        "Keep names, order, style and everything that was not asked for. Look at the difference with the "
        "tool before you answer: each changed line must serve the purpose. Say in one line per change why "
        "it is there.",
        ("text.diff",),
    ),
}

SKILLS: Final[Mapping[str, Skill]] = {**_NAMED, **_OF_GROUPS, **_OF_SOFTWARE}
