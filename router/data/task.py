"""Analyse what a task is about by its words: language, domain, complexity, whether it needs the web."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Domain = Literal["enterprise", "algorithms", "backend", "general"]
Complexity = Literal["low", "medium", "high"]


# (language, words that name it), in the order of asking: TypeScript code also looks like JavaScript.
_LANGUAGES: Final = (
    ("python", r"python|django|flask|fastapi|pandas|numpy|pytest|\w+\.py"),
    ("typescript", r"typescript|angular|next\.js|nestjs|\w+\.tsx?"),
    ("javascript", r"javascript|node\.js|nodejs|react|vue|\w+\.jsx?"),
    ("rust", r"rust|cargo|\w+\.rs"),
    ("go", r"golang|in go|go (?:service|server|program|module|function)|\w+\.go"),
    ("java", r"java|spring boot|\w+\.java"),
    ("c++", r"c\+\+|\w+\.cpp"),
    ("c#", r"c#|\.net|\w+\.cs"),
    ("sql", r"sql|postgres|postgresql|mysql|sqlite"),
    ("shell", r"bash|shell script|\w+\.sh"),
)
_LANGUAGE_PATTERNS: Final = tuple(
    (language, re.compile(rf"(?<![\w.])(?:{words})(?![\w+#])", re.IGNORECASE))
    for language, words in _LANGUAGES
)


# An organisation by its legal form, by the noun it ends on, or by being a well-known one.
_LEGAL_FORM: Final = re.compile(
    r"\b[A-Z][\w&'-]{0,40}(?:\s{1,9}(?:[A-Z&][\w&'-]{0,40}|of|and)){0,5},?\s{1,9}"
    r"(?:Inc|Corp|Corporation|Ltd|LLC|LLP|PLC|GmbH|AG|BV|Holdings|Bank|University|Institute|Foundation|"
    r"Association|Ministry|Agency)\b"
)
_KNOWN_ORGANISATIONS: Final = re.compile(
    r"\b(?:Google|Microsoft|Amazon|Apple|Meta|Facebook|Netflix|IBM|Oracle|SAP|Salesforce|Cisco|Intel|Nvidia|"
    r"NVIDIA|Siemens|Bosch|Samsung|Sony|Toyota|Volkswagen|Walmart|JPMorgan|Goldman Sachs|Deloitte|Accenture|"
    r"OpenAI|Anthropic|DeepMind|Uber|Airbnb|Spotify|PayPal|Visa|Mastercard|NASA|WHO|UNICEF|NATO|"
    r"United Nations|European Union|World Bank)\b"
)
_ALGORITHMS: Final = frozenset({"algorithm", "complexity"})
_BACKEND: Final = frozenset({"API", "endpoint", "REST"})
_TOKEN: Final = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")
_YEAR: Final = re.compile(r"(?<![\w.$€£:/-])(?:19|20)\d\d(?![\w:]|\.\d)")
_MONTHS: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)


# A four-digit number is a date when something beside it says so: "port 2048" is none.
_DATE_BEFORE: Final = re.compile(
    rf"(?:\b(?:in|since|by|until|till|before|after|during|from|as of|early|mid|late|of|year|and|to|spring|"
    rf"summer|autumn|fall|winter|q[1-4]|{_MONTHS}(?:\s+\d{{1,2}}(?:st|nd|rd|th)?,?)?)[\s,]+|[-–]\s*)$",
    re.IGNORECASE,
)
_DATE_AFTER: Final = re.compile(
    r"^(?:\s*[-–]\s*(?:\d{1,2}\b|(?:19|20)\d\d)|\s+(?:release|edition|version|standard|news|trends?|report|"
    r"election|season|budget|tax|regulations?|guidelines?)\b)",
    re.IGNORECASE,
)
_ISO_DATE: Final = re.compile(
    r"\b((?:19|20)\d\d)-\d{2}(?:-\d{2})?\b|\b\d{1,2}[./]\d{1,2}[./]((?:19|20)\d\d)\b"
)
_RECENT_YEAR: Final = 2024
_READ_CHARACTERS: Final = 20_000
_PRODUCTS: Final = ("Next.js 15", "React 19", "Stripe v2024")
_HARD: Final = re.compile(
    r"\b(?:distributed|concurren\w+|parallel|real-?time|fault.tolerant|scal(?:e|able|ability)|optimi[sz]\w*|"
    r"architect\w*|migrat\w*|security|encrypt\w*|consensus|transaction\w*|thread.safe|compiler|refactor\w*|"
    r"dynamic programming|np-hard|machine learning)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TaskMetadata:
    language: str
    """"unknown" where the text names none."""
    domain: Domain
    complexity: Complexity
    requires_web_search: bool
    estimated_tokens: int


def analyze_task(task: str) -> TaskMetadata:
    """Analyse the text of a task by its words alone, the same way every time (S3-37, S3-38)."""
    tokens = _TOKEN.findall(task)
    # A worker serves others too: a task says what it is about in its beginning.
    task = task[:_READ_CHARACTERS]
    return TaskMetadata(
        language=_language(task),
        domain=_domain(task, tokens),
        complexity=_complexity(task, tokens),
        requires_web_search=_needs_web_search(task),
        estimated_tokens=round(len(tokens) * 1.3),
    )


def _language(task: str) -> str:
    for language, pattern in _LANGUAGE_PATTERNS:
        if pattern.search(task):
            return language
    return "unknown"


def _domain(task: str, tokens: Sequence[str]) -> Domain:
    """In the seed's order: an organisation outweighs what is to be built for it."""
    if _LEGAL_FORM.search(task) or _KNOWN_ORGANISATIONS.search(task):
        return "enterprise"
    if not _ALGORITHMS.isdisjoint(tokens):
        return "algorithms"
    if not _BACKEND.isdisjoint(tokens):
        return "backend"
    return "general"


def _complexity(task: str, tokens: Sequence[str]) -> Complexity:
    weight = len({found.lower() for found in _HARD.findall(task)}) + len(tokens) / 60
    return "high" if weight >= 3 else "medium" if weight >= 1 else "low"


def _needs_web_search(task: str) -> bool:
    if any(year >= _RECENT_YEAR for year in _years_in_dates(task)):
        return True
    return any(product in task for product in _PRODUCTS)


def _years_in_dates(task: str) -> list[int]:
    years = [int(match[1] or match[2]) for match in _ISO_DATE.finditer(task)]
    for match in _YEAR.finditer(task):
        # Only what stands near: the text may be long and a look over all of it per number would cost.
        before, after = task[max(0, match.start() - 24) : match.start()], task[match.end() : match.end() + 16]
        if _DATE_BEFORE.search(before) or _DATE_AFTER.search(after):
            years.append(int(match[0]))
    return years
