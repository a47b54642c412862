"""Read a prompt: role, topic, code, and a random draw that depends on its text only."""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from infra.simulator.skills import Domain, Traits, domain_of, drawn, traits_of

Role = Literal["architect", "coder", "reviewer", "refiner", "tester", "documenter", "optimizer", "writer"]


def _tier(*signals: tuple[Role, str]) -> tuple[tuple[Role, re.Pattern[str]], ...]:
    return tuple((role, re.compile(pattern, re.I)) for role, pattern in signals)


# Tried tier by tier, the earliest match of a tier wins: "You are a code reviewer" names a role,
# "repair what the review found" only describes work.
ROLE_SIGNALS: Final = (
    _tier(
        ("architect", r"\b(architect|designer|planner)\b"),
        ("reviewer", r"\b(reviewer|auditor|critic|judge)\b"),
        ("tester", r"\b(tester|qa engineer)\b"),
        ("refiner", r"\b(refiner|fixer)\b"),
        ("documenter", r"\b(documenter|technical writer)\b"),
        ("optimizer", r"\b(optimi[sz]er)\b"),
        ("coder", r"\b(programmer|coder)\b"),
    ),
    _tier(
        ("refiner", r"\b(improve|refine|repair|fix|revise|address the)\b"),
        ("reviewer", r"\b(review|audit|critique|assess|evaluate)"),
        ("tester", r"\b(tests|test cases|unit test)\b"),
        ("documenter", r"\b(document|documentation|docstring|readme|changelog)\b"),
        ("optimizer", r"\b(optimi[sz]e|faster|speed up)\b"),
        ("architect", r"\b(architecture|design|plan)\b"),
        ("coder", r"\b(implement|write (?:a |the )?(?:code|function|class|module)|code up|program)\b"),
    ),
    _tier(("coder", r"\b(engineer|developer|function|class|code)\b")),
)
_COMMON_WORDS: Final = """
build create compute develop provide support handle allow return
about above after again also answer before below between both code could does each every file find
following from have here into just keep like make more most must need only other over please should
some step such task than that their them then there these they this those under using very want well
what when where which while will with work would write your review reviewer design implement test
tests improve result output input given text user system python return class true false none self
import json issues
"""
STOP_WORDS: Final = frozenset(_COMMON_WORDS.split())
FENCE: Final = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.S)
CODE_LINE: Final = re.compile(
    r"^[ \t]*(def |class |import |from \w|return\b|if .*:$|for .*:$|const |let |function |func |async |@\w)",
    re.M,
)
IDENTIFIER: Final = re.compile(
    r"\b(?:def|class|function|func|fn|const|let|var|interface|struct)\s+([A-Za-z_]\w*)"
)
# Prompts may hold whole files; the words of a task stand near its beginning.
READ_FOR_TOPIC: Final = 4000


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A request, read once."""

    model: str
    traits: Traits
    domain: Domain
    role: Role
    text: str
    """All text of the users' messages."""
    topic: str
    words: tuple[str, ...]
    code: str
    """The code in the prompt, or empty."""
    identifiers: tuple[str, ...]
    digest: str

    @property
    def skill(self) -> float:
        return self.traits.skill[self.domain]

    @property
    def length(self) -> float:
        """Length of this answer: around the model's verbosity."""
        return drawn(self.draw("length"), self.traits.verbosity, self.traits.verbosity_spread)

    def draw(self, purpose: str) -> random.Random:
        """Chance that depends on the request and the purpose alone."""
        return random.Random(f"{self.digest}/{purpose}")


def read_prompt(
    seed: int, model: str, messages: Sequence[Mapping[str, object]], response_format: object = None
) -> ReadPrompt:
    """Read a request: equal requests give equal prompts, whatever the attempt."""
    canonical = json.dumps([seed, model, messages, response_format], sort_keys=True, ensure_ascii=False)
    system = "\n".join(text_of(m) for m in messages if m.get("role") in ("system", "developer"))
    text = "\n".join(text_of(m) for m in messages if m.get("role") not in ("system", "developer"))
    prose = FENCE.sub(" ", text)[:READ_FOR_TOPIC]
    code = "\n".join(FENCE.findall(text))
    if not code and len(CODE_LINE.findall(text)) >= 3:
        code = text
    words = _key_words(prose if prose.strip() else text[:READ_FOR_TOPIC])
    return ReadPrompt(
        model=model,
        traits=traits_of(model),
        domain=domain_of(prose),
        role=_role(system) or _role(prose) or "writer",
        text=text,
        topic=_topic(prose, words),
        words=words,
        code=code,
        identifiers=tuple(dict.fromkeys(IDENTIFIER.findall(code)))[:12],
        digest=hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def text_of(message: Mapping[str, object]) -> str:
    """Return the text of a message, also if it comes in parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _role(text: str) -> Role | None:
    for tier in ROLE_SIGNALS:
        places = [(m.start(), role) for role, pattern in tier if (m := pattern.search(text))]
        if places:
            return min(places)[1]
    return None


def _key_words(text: str) -> tuple[str, ...]:
    words = [w.lower() for w in re.findall(r"[A-Za-z][A-Za-z]{3,18}", text)]
    counts = Counter(w for w in words if w not in STOP_WORDS)
    return tuple(word for word, _ in counts.most_common(8)) or ("request",)


def _topic(prose: str, words: tuple[str, ...]) -> str:
    for line in re.split(r"\n|(?<=[.!?])\s", prose):
        cleaned = re.sub(r"^[#>*\-\s]+|^(?:task|goal|request)\s*:\s*", "", line.strip(), flags=re.I).strip(
            " .:"
        )
        if len(cleaned) > 12:
            return cleaned[:90]
    return " ".join(words[:4])
