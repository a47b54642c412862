"""Named questions to the collaboration graph; each is a .cypher file here, as a person would paste it."""

import re
from functools import cache
from importlib.resources import files
from typing import Final

from schema.errors import NotFound

# Of tasks that an earlier release projected, their agents' work tells.
_OF_KIND: Final = """WITH *
WHERE coalesce(t.simulated, EXISTS { (t)<-[work {simulated: true}]-(:Agent) }) = $simulated
"""
_MATCHED: Final = re.compile(r"^(?=RETURN|WITH)", re.MULTILINE)


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


def of_kind(name: str) -> str:
    """The question about the tasks `t` of simulated runs alone, or of real ones: as `$simulated` says."""
    return _MATCHED.sub(_OF_KIND, cypher(name), count=1)
