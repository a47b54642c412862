"""Writes the one list of exact versions: `python -m infra.gate.lock [--upgrade]`.

uv's own lock names an index in every line and is not committed. So the versions that it has found stand as
constraints in pyproject.toml, where they hold for `uv sync` and `uv run`, and with their hashes in
requirements.lock, for images. Run it after every change of a dependency.
"""

import argparse
import re
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_LIST: Final = re.compile(r"^constraint-dependencies = \[\n(?:  .*\n)*\]\n", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions within the cut-off")
    upgrade: bool = parser.parse_args().upgrade
    if upgrade:
        _write([])
    _uv("lock", *(["--upgrade"] if upgrade else []))
    everything = ("--all-groups", "--all-extras", "--no-hashes", "--no-annotate")
    _write(_uv("export", "--no-emit-project", "--no-header", *everything).splitlines())
    _uv("lock")
    _uv("export", "--no-emit-project", "--no-header", "--no-dev", "-o", "requirements.lock")


def _write(constraints: list[str]) -> None:
    path = ROOT / "pyproject.toml"
    # A marker holds single quotes only.
    lines = "".join(f'  "{one}",\n' for one in constraints)
    text, replaced = _LIST.subn(lambda _: f"constraint-dependencies = [\n{lines}]\n", path.read_text())
    if replaced != 1:
        raise SystemExit(f"found {replaced} lists of constraint-dependencies in {path}; expected one.")
    path.write_text(text)


def _uv(*arguments: str) -> str:
    return subprocess.run(
        ["uv", *arguments, "--quiet"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
