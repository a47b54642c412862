"""What a person types becomes a run's input."""

import json
from pathlib import Path

import pytest

from cli.runs.inputs import parse
from schema.errors import Refused
from schema.rules import positions


def test_pairs_are_text_files_or_json(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("print('ä')\n")
    found = parse(["task=a=b", f"file=@{file}", "count:=3", "tags:=[1]", "empty="], None)
    assert found == {"task": "a=b", "file": "print('ä')\n", "count": 3, "tags": [1], "empty": ""}


def test_a_json_file_is_the_input_and_pairs_go_over_it(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text(json.dumps({"task": "old", "n": 1}))
    assert parse([], str(file)) == {"task": "old", "n": 1}
    assert parse(["task=new"], str(file)) == {"task": "new", "n": 1}


@pytest.mark.parametrize("pairs", [["task"], ["=x"], [":=1"], ["n:=nope"], ["file=@/no/such/file"]])
def test_what_cannot_be_meant_is_refused(pairs: list[str]) -> None:
    with pytest.raises(Refused, match="found"):
        parse(pairs, None)


def test_pairs_need_an_object_to_go_over(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text("[1]")
    assert parse([], str(file)) == [1]
    with pytest.raises(Refused, match="object"):
        parse(["a=b"], str(file))


def test_a_pointer_is_found_in_json_and_yaml() -> None:
    text = '{\n\t"steps": {\n\t\t"a/b": {"kind": "x"},\n\t\t"list": [1,\n\t\t2]\n\t}\n}'
    wanted = ["/steps/a~1b/kind", "/steps/list/1", "/steps/a~1b/missing", "/nothing", ""]
    assert positions.lines(text, wanted) == {
        "/steps/a~1b/kind": 3,
        "/steps/list/1": 5,
        "/steps/a~1b/missing": 3,
        "/nothing": 1,
    }
    assert positions.lines("steps:\n  one:\n    kind: x\n", ["/steps/one/kind"]) == {"/steps/one/kind": 3}


def test_an_unreadable_file_has_no_lines() -> None:
    assert positions.lines("{", ["/a"]) == {}
    assert positions.lines("[" * 100_000, ["/a"]) == {}


@pytest.mark.parametrize(
    "pair",
    [
        "a:=NaN",
        "a:=-Infinity",
        "a:=1e999",
        'a:="\\ud83d"',
        'a:={"b": 1, "b": 2}',
        "a:=\udcff",
        'a:="\\u0000"',
        f"a:={'[' * 101}{']' * 101}",
        f"a:={'9' * 31}",
    ],
)
def test_json_is_read_as_the_api_reads_it(pair: str) -> None:
    with pytest.raises(Refused, match="found no JSON that can be used in --input a") as caught:
        parse([pair], None)
    assert caught.value.code == "input_invalid"
    str(caught.value).encode()


def test_a_file_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(Refused, match="bytes that are not UTF-8"):
        parse([], str(file))
