"""Read the JSON that a model was asked for, whatever it wraps it in.

Models put their JSON into code fences, think aloud before it, and explain it around it. All of that is read;
an answer that holds several values is read only where exactly one of them is what was asked for.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Final

from schema.cel.expressions import Json
from schema.values.foreign_json import NotJson, UnusableJson, first_json, read_json

MAX_SEARCHED_CHARS: Final = 250_000
MAX_MENDED_CHARS: Final = 50_000
MAX_MENDED_MARKS: Final = 2_000
MAX_MENDED_DEPTH: Final = 20
"""The mender's time grows with the square of the quotes and brackets, and with how deep they lie."""
MAX_BEGINNINGS: Final = 100
"""Most beginnings of a value in the prose around it."""
_BLANK: Final = "\ufeff \t\r\n"
_THOUGHT: Final = re.compile(r"[\ufeff\s]*<(think|thinking|thought|reasoning)>")
_BARE: Final = re.compile(r"[\ufeff\s]*[\[{\"]")
_FENCE: Final = re.compile(r"(?:`{3,}|~{3,})[^\S\r\n]*[\w+#./-]*\s*")
_AFTER_FENCED: Final = re.compile(r"\s*(?:`{3,}|~{3,}|\Z)")
_BRACKET: Final = re.compile(r"(?=[\[{])")
_MARK: Final = re.compile(r"[\[{}\]\"'“”]")


def read_model_json(answer: str, fits: Callable[[Json], bool]) -> Json:
    """Return the one JSON value of an answer; `fits` tells whether a value is what was asked for.

    Raises NotJson.
    """
    text = without_thoughts(answer)
    try:
        return read_json(text)
    except UnusableJson:
        raise
    except NotJson as error:
        wrong = error
    found = list(_fenced(text)) or list(_in_prose(text))
    if len(found) > 1:
        found = [value for value in found if fits(value)]
        wrong = NotJson(f"it holds several JSON values, {len(found) or 'none'} of which fit; expected one")
    if len(found) != 1:
        raise wrong
    return found[0]


def mended(answer: str) -> Json:
    """Return the value that nearly right JSON must mean: a comma too many, quotes or brackets that lack.

    Raises NotJson where nothing like it is there.
    """
    text = without_thoughts(answer)
    if len(text) > MAX_MENDED_CHARS or not _can_be_mended(_MARK.findall(text)):
        raise NotJson("found nothing in it that could be mended")
    # Imported late: few need it.
    import json_repair

    try:
        return read_json(text)
    except UnusableJson:
        raise
    except NotJson:
        pass
    try:
        value = json_repair.repair_json(text, ensure_ascii=False)
    except (ValueError, RecursionError):
        raise NotJson("it is too broken to be mended") from None
    return read_json(value)


def _can_be_mended(marks: list[str]) -> bool:
    """Tell whether brackets and quotes are present, and few enough to repair."""
    steps = (1 if mark in "[{" else -1 if mark in "]}" else 0 for mark in marks)
    depths = list(itertools.accumulate(steps))
    return 0 < max(depths, default=0) <= MAX_MENDED_DEPTH and len(marks) <= MAX_MENDED_MARKS


def without_thoughts(answer: str) -> str:
    """Return an answer without what a model thought aloud before it; raises NotJson where all is thought."""
    at = 0
    while opened := _THOUGHT.match(answer, at):
        closing = f"</{opened[1]}>"
        end = answer.find(closing, opened.end())
        if end < 0:
            raise NotJson("it is all thought, which never ends")
        at = end + len(closing)
    # Some chat templates open the block themselves, and the model only closes it.
    end = answer.find("</think>", at)
    if end >= 0 and answer.find("<think>", at, end) < 0 and not _BARE.match(answer, at):
        at = end + len("</think>")
    return answer[at:].strip(_BLANK)


def _fenced(text: str) -> Iterator[Json]:
    """The values that each stand alone in a code fence, however it is opened and whether it is closed."""
    for value, end in _beginnings(_FENCE, text):
        if _AFTER_FENCED.match(text, end):
            yield value


def _in_prose(text: str) -> Iterator[Json]:
    """Objects and lists among other words."""
    return (value for value, _ in _beginnings(_BRACKET, text))


def _beginnings(mark: re.Pattern[str], text: str) -> Iterator[tuple[Json, int]]:
    """The values that begin at a mark, each with its end; none lies within another."""
    at, tries = 0, 0
    while len(text) <= MAX_SEARCHED_CHARS and tries < MAX_BEGINNINGS and (begun := mark.search(text, at)):
        tries += 1
        try:
            value, at = first_json(text, begun.end())
            yield value, at
        except NotJson:
            at = max(begun.end(), begun.start() + 1)
