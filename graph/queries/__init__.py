"""Named questions to the collaboration graph; each is a .cypher file here, as a person would paste it."""

from functools import cache
from importlib.resources import files

from schema.errors import NotFound


@cache
def names() -> tuple[str, ...]:
    found = (entry.name for entry in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".cypher") for name in found if name.endswith(".cypher")))


@cache
def cypher(name: str) -> str:
    """The text of a named question; raises NotFound."""
    if name not in names():
        raise NotFound(
            "graph_query_unknown", f"found no question {name!r}; expected one of {', '.join(names())}."
        )
    return files(__package__).joinpath(f"{name}.cypher").read_text(encoding="utf-8")
