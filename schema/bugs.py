"""Report a bug to people as its type and the id of the log line that has the rest.

The text of an exception is for the log alone: it may quote SQL, parameters, paths or somebody's data.
"""

import contextlib
import logging
import secrets

from schema.errors import FacilitairError

CODE = "internal_error"
_MARK = "_facilitair_bug"


def bug(error: BaseException, log: logging.Logger, **where: object) -> FacilitairError:
    """The error that is told instead; writes the log line, once however often the bug is met."""
    id = noted(error, log, **where)
    return FacilitairError(
        CODE,
        f"found a fault of the platform itself ({type(error).__name__}). The log has the details under {id}.",
    )


def noted(error: BaseException, log: logging.Logger, **where: object) -> str:
    """The id of the log line that has all of an error; writes it, once however often the error is met."""
    id: str | None = getattr(error, _MARK, None)
    if id is None:
        id = secrets.token_hex(6)
        with contextlib.suppress(AttributeError, TypeError):  # some errors written in C take no mark
            setattr(error, _MARK, id)
        log.error("a fault of the platform", exc_info=error, extra={"bug": id, **where})
    return id
