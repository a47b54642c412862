"""Finds keys in what is committed: `python -m infra.gate.leaks`. Names places, never keys."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

_START: Final = r"(?<![A-Za-z0-9])"
SHAPES: Final = {
    "a key of OpenAI, Anthropic, OpenRouter or DeepSeek": rf"{_START}sk-(?:[a-z0-9]+-)*[A-Za-z0-9_-]{{20,}}",
    "a token of GitHub": rf"{_START}(?:gh[opsur]_[A-Za-z0-9]{{36,}}|github_pat_[A-Za-z0-9_]{{22,}})",
    "a token of GitLab": rf"{_START}glpat-[A-Za-z0-9_-]{{20,}}",
    "a key of AWS": rf"{_START}(?:AKIA|ASIA)[0-9A-Z]{{16}}(?![0-9A-Z])",
    "a key of Google": rf"{_START}(?:AIza[0-9A-Za-z_-]{{35}}|GOCSPX-[0-9A-Za-z_-]{{20,}})",
    "a token of Slack": rf"{_START}xox[abeoprs]-[0-9A-Za-z-]{{10,}}",
    "a webhook of Slack": r"hooks\.slack\.com/services/T[0-9A-Z]+/B[0-9A-Z]+/[0-9A-Za-z]{16,}",
    "a token of Hugging Face": rf"{_START}hf_[A-Za-z0-9]{{30,}}",
    "a key of Groq": rf"{_START}gsk_[A-Za-z0-9]{{30,}}",
    "a key of xAI": rf"{_START}xai-[A-Za-z0-9]{{30,}}",
    "a key of Stripe": rf"{_START}[rs]k_live_[A-Za-z0-9]{{20,}}",
    "a token of PyPI": rf"{_START}pypi-AgEI[A-Za-z0-9_-]{{20,}}",
    "a token of npm": rf"{_START}npm_[A-Za-z0-9]{{36,}}",
    "a private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY",
}
_ANY: Final = re.compile("|".join(f"(?P<s{number}>{shape})" for number, shape in enumerate(SHAPES.values())))
_NAMES: Final = list(SHAPES)
# A made-up key in a test says so with a letter that repeats, or the alphabet.
_MADE_UP: Final = re.compile(r"(.)\1{7}|abcdefgh|12345678", re.IGNORECASE)


def leaks(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, kind) of everything in a text that has the shape of a secret."""
    for match in _ANY.finditer(text):
        kind = _NAMES[int(str(match.lastgroup)[1:])]
        if kind == "a private key" or not _MADE_UP.search(match.group()):
            yield text.count("\n", 0, match.start()) + 1, kind


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    found = 0
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            for line, kind in leaks(path.read_text("utf-8", errors="replace")):
                print(f"{name}:{line}: {kind} is committed", file=sys.stderr)
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
