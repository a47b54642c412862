"""Choose content for fields of a structured answer by their names."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from infra.simulator.conform import Hint, nothing
from infra.simulator.flaws import Finding
from infra.simulator.prompt import ReadPrompt, Role
from infra.simulator.review import Review, review_of

LISTS_OF_ISSUES: Final = frozenset(("issues", "findings", "problems", "defects", "bugs", "errors", "faults"))
FOUND: Final = frozenset(
    ("found_issues", "has_issues", "needs_changes", "needs_work", "needs_revision", "changes_requested")
)
GOOD: Final = frozenset(("approved", "passed", "ok", "success", "accepted", "valid", "correct", "lgtm"))
SCORES: Final = frozenset(("quality", "score", "rating", "confidence", "quality_score", "grade"))
COUNTS: Final = frozenset(("issue_count", "issues_count", "issues_found", "count_of_issues"))
SUMMARIES: Final = frozenset(
    ("summary", "comment", "comments", "feedback", "review", "explanation", "reason", "rationale", "notes")
)
TITLES: Final = frozenset(("title", "name", "topic", "subject", "task"))
# The worst first; a schema's own words are matched by rank.
SEVERITY_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "critical": ("critical", "blocker", "severe", "high", "error", "major"),
    "major": ("major", "high", "error", "medium", "warning", "warn"),
    "minor": ("minor", "low", "info", "nit", "style", "warning", "medium"),
    "none": ("none", "no", "ok", "info", "low", "minor"),
}
VERDICTS: Final = {
    True: ("request_changes", "changes_requested", "reject", "rejected", "revise", "fail", "no"),
    False: ("approve", "approved", "accept", "accepted", "pass", "ok", "yes"),
}
CODE_FIELDS: Final = re.compile(r"code|implementation|solution|patch|refactored|refined|module|program")
TEST_FIELDS: Final = re.compile(r"tests?$|test_code|test_cases")
DESIGN_FIELDS: Final = re.compile(r"design|architecture|plan|approach")
DOC_FIELDS: Final = re.compile(r"doc|readme|guide")
TEXT_FIELDS: Final = re.compile(r"answer|text|result|content|output|body|response|message|description")


def hints_for(prompt: ReadPrompt, write: Callable[[ReadPrompt, Role | None], str]) -> Hint:
    """Suggestions for an answer's fields; the same field gets the same suggestion however often asked."""
    review = review_of(prompt)

    def hint(name: str, schema: Mapping[str, object]) -> object:
        key = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        judged = _judgement(key, schema, review)
        if judged is not nothing:
            return judged
        if schema.get("type") == "string":
            if "enum" in schema:
                return _mentioned(schema["enum"], prompt.text)
            return _prose(key, prompt, write)
        if schema.get("type") == "array" and key in ("keywords", "tags", "topics", "identifiers"):
            return list(prompt.identifiers or prompt.words)
        return nothing

    return hint


def _judgement(key: str, schema: Mapping[str, object], review: Review) -> object:
    kind = schema.get("type")
    if key in LISTS_OF_ISSUES and kind == "array":
        return [_issue_hint(finding) for finding in review.findings]
    if key in FOUND and kind == "boolean":
        return review.found_issues
    if key in GOOD and kind == "boolean":
        return not review.found_issues
    if key in SCORES and kind in ("number", "integer"):
        return _scaled(review.quality, schema)
    if key in COUNTS or (key in LISTS_OF_ISSUES and kind == "integer"):
        return len(review.findings)
    if key in ("severity", "max_severity", "worst_severity"):
        return _in_words_of(schema, SEVERITY_WORDS[review.severity], review.severity)
    if key in ("verdict", "decision", "status", "recommendation") and "enum" in schema:
        return _in_words_of(schema, VERDICTS[review.found_issues], nothing)
    if key in SUMMARIES and kind == "string":
        return review.summary
    return nothing


def _issue_hint(finding: Finding) -> Hint | str:
    def hint(name: str, schema: Mapping[str, object]) -> object:
        key = name.lower()
        if key == "":
            return f"{finding.severity}: {finding.message}" + (
                f" (line {finding.line})" if finding.line else ""
            )
        if key in ("severity", "level", "priority", "impact"):
            return _in_words_of(schema, SEVERITY_WORDS[finding.severity], finding.severity)
        if key in ("line", "line_number", "lineno", "row", "start_line"):
            return max(1, finding.line)
        if key in ("file", "path", "filename", "location", "place", "where"):
            return (
                f"{finding.file}:{finding.line}"
                if finding.file and key != "file"
                else finding.file or "the work"
            )
        if key in ("fix", "suggestion", "recommendation", "cure", "remedy", "suggested_fix"):
            return finding.fix
        if key in ("code", "rule", "id", "kind", "type", "category", "check"):
            return _in_words_of(schema, (finding.code,), finding.code)
        if key in ("quote", "snippet", "evidence", "excerpt"):
            return finding.quote or finding.message
        return finding.message if schema.get("type") == "string" and "enum" not in schema else nothing

    return hint


def _prose(key: str, prompt: ReadPrompt, write: Callable[[ReadPrompt, Role | None], str]) -> object:
    if key in TITLES:
        return prompt.topic
    if key == "domain":
        return prompt.domain
    if key == "language":
        return "python"
    fields: tuple[tuple[re.Pattern[str], Role | None], ...] = (
        (TEST_FIELDS, "tester"),
        (CODE_FIELDS, "refiner" if prompt.role == "refiner" else "coder"),
        (DESIGN_FIELDS, "architect"),
        (DOC_FIELDS, "documenter"),
        (TEXT_FIELDS, None),
    )
    for pattern, role in fields:
        if pattern.search(key):
            return write(prompt, role)
    return nothing


def _scaled(quality: float, schema: Mapping[str, object]) -> object:
    low, high = schema.get("minimum", 0), schema.get("maximum", 100 if schema.get("type") == "integer" else 1)
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return nothing
    value = low + (high - low) * quality
    return round(value) if schema.get("type") == "integer" else round(value, 2)


def _in_words_of(schema: Mapping[str, object], wanted: tuple[str, ...], otherwise: object) -> object:
    allowed = schema.get("enum")
    if not isinstance(allowed, list):
        return otherwise
    by_word = {str(value).lower(): value for value in allowed}
    return next((by_word[word] for word in wanted if word in by_word), nothing)


def _mentioned(allowed: object, text: str) -> object:
    """The allowed word that the prompt itself uses first."""
    if not isinstance(allowed, list):
        return nothing
    places = [
        (m.start(), v)
        for v in allowed
        if isinstance(v, str) and v and (m := re.search(rf"\b{re.escape(v)}\b", text))
    ]
    return min(places)[1] if places else nothing
