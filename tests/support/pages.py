"""The pages of the documentation as data: their fenced blocks, and what stands above them in comments."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK: Final = re.compile(
    r"(?:^<!-- (?P<word>not run|file): (?P<about>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class PageBlock:
    """A fenced block. `file` is the name under which the page has it saved, `not_run` why nobody runs it."""

    page: str
    line: int
    language: str
    text: str
    file: str = ""
    not_run: str = ""

    def commands(self) -> Iterator[str]:
        """Yield what a shell takes for one command: lines that end in a backslash or within quotes go on."""
        command = ""
        for line in self.text.splitlines():
            command += f"{line}\n"
            is_open = line.endswith("\\") or re.sub(r"#[^'\"]*$", "", command).count("'") % 2
            if not is_open:
                if command.strip():
                    yield command.rstrip()
                command = ""
        assert not command, f"{self.page}:{self.line}: the block ends within a command"


def blocks(page: Path) -> list[PageBlock]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        comment = {match["word"]: match["about"]}
        line = text.count("\n", 0, match.start()) + 1
        name = str(page.relative_to(ROOT))
        found.append(
            PageBlock(
                name,
                line,
                match["language"],
                match["text"],
                comment.get("file", ""),
                comment.get("not run", ""),
            )
        )
    return found
