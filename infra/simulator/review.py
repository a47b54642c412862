"""Review a piece of work as a simulated model."""

from dataclasses import dataclass
from typing import Final

from infra.simulator.flaws import MAX_FINDINGS, Finding, Severity, find_flaws, find_tool_findings
from infra.simulator.prompt import ReadPrompt

PENALTY: Final[dict[Severity, float]] = {"minor": 0.06, "major": 0.14, "critical": 0.28}
# A prompt shorter than this holds no work to read: the judgement is then drawn from the skill table.
MIN_WORK: Final = 200


@dataclass(frozen=True, slots=True)
class Review:
    """A judgement: what was found, how good the work is, in one sentence."""

    findings: tuple[Finding, ...]
    quality: float
    summary: str

    @property
    def found_issues(self) -> bool:
        return bool(self.findings)

    @property
    def severity(self) -> str:
        ranked = sorted(self.findings, key=lambda finding: PENALTY[finding.severity])
        return ranked[-1].severity if ranked else "none"


def review_of(prompt: ReadPrompt) -> Review:
    """Read the work in the prompt. Tools' findings are always reported; other faults only if seen."""
    draw = prompt.draw("review")
    work = prompt.code or (prompt.text if len(prompt.text) >= MIN_WORK else "")
    reported = find_tool_findings(prompt.text)
    present = find_flaws(work) if work else _imagined(prompt)
    rate = prompt.traits.finding_rate
    seen = [flaw for flaw in present if draw.random() < rate(prompt.domain, flaw.severity)]
    findings = tuple((reported + seen)[:MAX_FINDINGS])
    # Quality follows the truth, not what was seen; a weak reviewer only measures it less exactly.
    truth = 0.97 - sum(PENALTY[flaw.severity] for flaw in present) - 0.04 * len(reported)
    noise = draw.uniform(-1, 1) * (1.0 - prompt.skill) * 0.12
    quality = round(min(1.0, max(0.05, truth + noise)), 2)
    return Review(findings, quality, _summary(prompt, findings))


def _imagined(prompt: ReadPrompt) -> list[Finding]:
    """Faults of a work that is not in the prompt: as many as the model's own skill leaves."""
    draw = prompt.draw("imagined")
    kinds: tuple[Severity, ...] = ("minor", "major", "critical")
    return [
        Finding(
            "weak-spot",
            draw.choice(kinds),
            f"{word} is not handled when it is missing",
            f"say what happens without {word}",
            0,
            "",
        )
        for word in prompt.words[:3]
        if draw.random() > prompt.skill
    ]


def _summary(prompt: ReadPrompt, findings: tuple[Finding, ...]) -> str:
    about = ", ".join(f"`{name}`" for name in prompt.identifiers[:3]) or " and ".join(prompt.words[:2])
    if not findings:
        return f"Read {about} for {prompt.topic}: nothing that must change."
    first = findings[0]
    place = f"{first.file}:{first.line}" if first.file else f"line {first.line}"
    where = f" ({place})" if first.line else ""
    return f"Read {about}: {len(findings)} issue(s), first {first.message}{where}."
