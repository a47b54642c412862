"""A folder that holds one case: what is done, and what must come of it."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

_MODEL: Final = re.compile(r'"((?:fake|anth)/[^"\\]+)"')
_PAGE: Final = re.compile(r"http://(127\.0\.0\.1|localhost):(\d+)")
_STARTED_BY_MANY: Final = ("inputs", "texts")


@dataclass(frozen=True)
class Page:
    """A page that a definition reads: served byte for byte at one address."""

    host: str
    port: int
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Case:
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def expected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._read("expect.json", "{}"))
        return found

    @cached_property
    def definition(self) -> str:
        """The text of the definition, as it stands."""
        return self._read("definition.json", "{}")

    @cached_property
    def definition_name(self) -> str:
        return str(json.loads(self.definition).get("name", ""))

    @cached_property
    def neighbour(self) -> str | None:
        """The text of the neighbour's definition; None where the case brings none."""
        return self._read("neighbour.json", "") or None

    def script(self, model: str) -> str:
        """The file that says what the fake provider answers to a model."""
        own = f"answers_{model}.json"
        return own if (self.folder / own).exists() else "answers.json"

    def answers(self, script: str) -> list[dict[str, Any]]:
        """What a file says, one answer for each call."""
        found: list[dict[str, Any]] = json.loads(self._read(script, "[]"))
        return found

    @property
    def starts(self) -> list[str]:
        """The runs to start, one after the other: JSON inputs, or the texts of sockets."""
        named = next((self.expected[key] for key in _STARTED_BY_MANY if key in self.expected), None)
        texts = named if named is not None else [self._read("input.json", "{}")]
        return [*texts] * int(self.expected.get("times", 1))

    @cached_property
    def models(self) -> set[str]:
        """The models of the fake provider that the definitions name, as `provider/model`."""
        return set(_MODEL.findall(self.definition)) | set(_MODEL.findall(self.neighbour or ""))

    @cached_property
    def neighbours_models(self) -> set[str]:
        """The names, without their provider, of the models that only the neighbour asks."""
        only = set(_MODEL.findall(self.neighbour or "")) - set(_MODEL.findall(self.definition))
        return {model.partition("/")[2] for model in only}

    @cached_property
    def page(self) -> Page | None:
        text = self._read("served.txt", "")
        address = _PAGE.search(self.definition)
        if not text or address is None:
            return None
        head, _, body = text.partition("\n\n")
        first, *lines = head.splitlines()
        method, _, path = first.partition(" ")
        headers = [line.split(": ", 1) for line in lines]
        return Page(
            address[1],
            int(address[2]),
            method,
            path.strip(),
            tuple((name, value) for name, value in headers),
            body.encode(),
        )

    def _read(self, name: str, absent: str) -> str:
        path = self.folder / name
        return path.read_bytes().decode() if path.exists() else absent


def cases(folder: Path) -> list[Case]:
    """Return the cases under a folder that say what is expected, or the folder's own."""
    if (folder / "expect.json").exists():
        return [Case(folder)]
    return [Case(path.parent) for path in sorted(folder.glob("*/expect.json"))]
