"""Faults that a simulated author leaves in its work, a reviewer finds by reading, and a refiner cures.

They are real patterns in the text, so a review depends on the work that it reviews and a loop of review and
repair comes to an end. Pasted code is read with the same table.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["minor", "major", "critical"]


@dataclass(frozen=True, slots=True)
class Flaw:
    """One kind of fault: how it looks, what is wrong with it, and what it becomes when cured."""

    code: str
    severity: Severity
    pattern: re.Pattern[str]
    cured: str
    """Replacement for `pattern`, as in re.sub."""
    message: str
    fix: str
    sample: str = ""
    """Lines that an author may write into a method body; empty for faults only met in pasted code."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault at a place."""

    code: str
    severity: Severity
    message: str
    fix: str
    line: int
    quote: str
    file: str = ""


def _flaw(
    code: str, severity: Severity, pattern: str, cured: str, message: str, fix: str, sample: str = ""
) -> Flaw:
    return Flaw(code, severity, re.compile(pattern), cured, message, fix, sample)


FLAWS: Final = (
    _flaw(
        "broad-except",
        "major",
        r"except(?: Exception| BaseException)?(?: as \w+)?:",
        "except (TypeError, ValueError):",
        "every exception is caught, so real faults disappear",
        "catch only what the call can raise",
        "try:\n    amount = int(amount)\nexcept Exception:\n    amount = 0",
    ),
    _flaw(
        "sql-injection",
        "critical",
        r"""f"(SELECT|INSERT|UPDATE|DELETE)([^"{]*?)'?\{[^}"]*\}'?([^"]*)\"""",
        r'"\1\2%s\3"',
        "a value is pasted into SQL",
        "pass it as a parameter",
        "self.last_query = f\"SELECT total FROM counters WHERE name = '{key}'\"",
    ),
    _flaw(
        "none-equality",
        "minor",
        r"(==|!=) None\b",
        "is None",
        "None is compared by equality",
        "use `is None`",
        "if amount == None:\n    amount = 1",
    ),
    _flaw(
        "unfinished",
        "major",
        r"#\s*(?:TODO|FIXME|XXX)\b:?\s*",
        "# Decided: ",
        "a part is left for later",
        "finish it or say why it is not needed",
        "# TODO: refuse a negative amount",
    ),
    _flaw(
        "naive-time",
        "minor",
        r"datetime\.(?:now|utcnow)\(\)",
        "datetime.now(UTC)",
        "a time without a zone",
        "ask for UTC",
        "self.changed_at = datetime.now()",
    ),
    _flaw(
        "type-equality",
        "minor",
        r"type\((\w+)\) == (\w+)",
        r"isinstance(\1, \2)",
        "types are compared by equality",
        "use isinstance",
        'if type(amount) == str:\n    raise TypeError("amount is text")',
    ),
    _flaw(
        "index-loop",
        "minor",
        r"for (\w+) in range\(len\((\w+(?:\.\w+)*)\)\):",
        r"for \1, _ in enumerate(\2):",
        "a loop over indices",
        "iterate over the items",
        "for index in range(len(self.history)):\n    self.history[index] += 0",
    ),
    _flaw(
        "hard-coded-secret",
        "critical",
        r"""(password|api_key|secret|token) = (["'])(?!\2)[^"'\n]+\2""",
        r'\1 = os.environ["\1"]',
        "a secret stands in the source",
        "read it from the environment",
    ),
    _flaw(
        "mutable-default",
        "major",
        r"\b(\w+): (list|dict)(\[[^\]]*\])? = (?:\[\]|\{\})",
        r"\1: \2\3 | None = None",
        "a mutable default is shared by all calls",
        "default to None",
    ),
    _flaw(
        "shell",
        "critical",
        r"shell=True",
        "shell=False",
        "a shell sees the arguments",
        "pass a list, no shell",
    ),
    _flaw("no-tls-check", "critical", r"verify=False", "verify=True", "TLS is not verified", "verify it"),
    _flaw(
        "unsafe-yaml",
        "critical",
        r"yaml\.load\(",
        "yaml.safe_load(",
        "YAML may build objects",
        "use safe_load",
    ),
    _flaw(
        "eval",
        "critical",
        r"(?<![\w.])eval\(",
        "ast.literal_eval(",
        "text is run as code",
        "parse it instead",
    ),
    _flaw(
        "star-import",
        "minor",
        r"from (\w+) import \*",
        r"import \1",
        "names come from nowhere",
        "name what you use",
    ),
    _flaw(
        "no-encoding",
        "minor",
        r"(?<![\w.])open\(([^(),\n]+)\)",
        r'open(\1, encoding="utf-8")',
        "the encoding depends on the machine",
        "name the encoding",
    ),
    _flaw(
        "undecided",
        "major",
        r"\b(?:TBD|to be decided)\b",
        "settled as above",
        "a decision is missing",
        "decide it before the work starts",
    ),
)

# What linters print: path:line[:column]: CODE message. Their findings are facts and are always reported.
TOOL_FINDING: Final = re.compile(
    r"^[ \t]*(?:[-*][ \t]*)?(?P<file>[\w./-]+\.\w{1,5}):(?P<line>\d+)(?::\d+)?:?\s+(?P<message>\S.*)$", re.M
)
# The same as JSON, in whatever order the tool wrote the keys.
TOOL_OBJECT: Final = re.compile(r"\{[^{}]*\}")
MAX_FINDINGS: Final = 8


def find_flaws(text: str) -> list[Finding]:
    """Every fault of the table that occurs in the text, in order of appearance."""
    found: list[Finding] = []
    for number, line in enumerate(text.splitlines(), start=1):
        for flaw in FLAWS:
            if flaw.pattern.search(line):
                quote = line.strip()[:120]
                found.append(Finding(flaw.code, flaw.severity, flaw.message, flaw.fix, number, quote))
                break
    return found


def find_tool_findings(text: str) -> list[Finding]:
    """Find the reports of a static analysis in the prompt."""
    found = [_reported(m["message"].strip(), int(m["line"]), m["file"]) for m in TOOL_FINDING.finditer(text)]
    for match in TOOL_OBJECT.finditer(text):
        line = re.search(r'"(?:line|row|lineno|line_number)"\s*:\s*(\d+)', match.group())
        message = _member(match.group(), "message|description|text")
        if line and message:
            code = _member(match.group(), "code|rule|check")
            file = _member(match.group(), "file|filename|path")
            found.append(_reported(f"{code} {message}".strip(), int(line.group(1)), file))
    return found[:MAX_FINDINGS]


def _reported(message: str, line: int, file: str) -> Finding:
    first = message.split()[0].strip(":[]")
    code = first if re.fullmatch(r"[A-Z]{1,5}\d{2,5}", first) else "static-analysis"
    # Layout, naming and import order; the other families speak of behaviour.
    severity: Severity = "minor" if code[0] in "EWDIN" else "major"
    return Finding(code, severity, message[:200], "do what the tool says", line, "", file)


def _member(body: str, names: str) -> str:
    found = re.search(rf'"(?:{names})"\s*:\s*"((?:[^"\\]|\\.)*)"', body)
    return found.group(1) if found else ""


def cure(text: str, codes: set[str]) -> str:
    """The text with the named kinds of fault repaired."""
    for flaw in FLAWS:
        if flaw.code in codes:
            text = flaw.pattern.sub(flaw.cured, text)
    return text
