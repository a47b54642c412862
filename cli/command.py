"""Commands: their errors, their exit codes, and the API that they ask."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from cli.client import connect
from cli.options import DataOption, UrlOption
from cli.output import fail
from schema.errors import FacilitairError, Refused
from schema.values.foreign import clean_text


def _check(arguments: Mapping[str, Any]) -> None:
    """Raise Refused("input_invalid") for an argument that JSON cannot hold, as bytes that are not UTF-8."""
    for name, given in arguments.items():
        for one in given if isinstance(given, (list, tuple)) else (given,):
            if isinstance(one, (str, Path)) and clean_text(str(one)) != str(one):
                raise Refused(
                    "input_invalid", f"found {ascii(str(one))[:100]} as {name}; expected UTF-8 without NUL."
                )
            if isinstance(one, float) and not math.isfinite(one):
                raise Refused("input_invalid", f"found {one} as {name}; expected a finite number.")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command that reports its errors, to a person or as JSON, with the exit code they have.

    A command whose first parameter is `api` gets the API that `--url` or `--data` names.
    """
    signature = inspect.signature(function)
    needs_api = "api" in signature.parameters

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            _check(kwargs)
            if needs_api:
                kwargs["api"] = connect(kwargs.pop("url", None), kwargs.pop("data", None))
            function(*args, **kwargs)
        except FacilitairError as error:
            fail(error, as_json=bool(kwargs.get("as_json")))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    if needs_api:
        _take_address(wrapper, signature)
    return wrapper


def _take_address(wrapper: Callable[..., None], signature: inspect.Signature) -> None:
    """Show Typer `--url` and `--data`, before `--json`, in the place of the parameter `api`."""
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in (("url", UrlOption), ("data", DataOption))
    ]
    own = [one for one in signature.parameters.values() if one.name != "api"]
    last = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own if one.name == "as_json"]
    parameters = [*(one for one in own if one.name != "as_json"), *options, *last]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
