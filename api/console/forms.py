"""Forms made from a JSON Schema: fields for simple types, an editor for JSON where it is more than that."""

import json
from collections.abc import Mapping
from typing import Any, Final

from api.console.html import text

_LONG_CHARS: Final = 60
_KINDS: Final = {"string": "string", "number": "number", "integer": "integer", "boolean": "boolean"}


def fields(schema: Mapping[str, Any] | None, prefix: str, given: Mapping[str, Any] | None = None) -> str:
    """The fields of an object; of any other schema one editor for the whole value."""
    schema = schema or {}
    properties = schema.get("properties")
    if schema.get("type", "object") != "object" or not isinstance(properties, Mapping) or not properties:
        whole = dict(given) if given else _example(schema)
        return f'<div data-form="{text(prefix)}">{_json(prefix, "", "Input (JSON)", whole, "")}</div>'
    required = schema.get("required") or []
    found = "".join(
        _field(prefix, str(name), _mapping(of), name in required, (given or {}).get(name))
        for name, of in properties.items()
    )
    return f'<div data-form="{text(prefix)}">{found}</div>'


def _field(prefix: str, name: str, schema: Mapping[str, Any], required: bool, given: Any) -> str:
    value = given if given is not None else schema.get("default")
    title = str(schema.get("title") or name)
    hint = str(schema.get("description") or "")
    if isinstance(choices := schema.get("enum"), list) and len(choices) <= 100:
        return _choice(prefix, name, title, choices, value, hint, required)
    kind = _KINDS.get(str(schema.get("type")))
    if kind is None:
        return _json(prefix, name, title, value, hint, required)
    if kind == "boolean":
        checked = " checked" if value is True else ""
        return (
            f'<div class="field check">'
            f'<input type="checkbox" id="{_id(prefix, name)}" {_data(name, kind)}{checked}>'
            f'<label for="{_id(prefix, name)}">{text(title)}</label>{_hint(hint)}</div>'
        )
    if kind in ("number", "integer"):
        limits = "".join(
            f' {html}="{text(schema[key])}"'
            for key, html in (("minimum", "min"), ("maximum", "max"))
            if key in schema
        )
        step = "1" if kind == "integer" else "any"
        shown = "" if value is None else text(value)
        control = f'<input type="number" step="{step}"{limits} value="{shown}"'
        return _labelled(prefix, name, title, f"{control} {_attributes(prefix, name, kind, required)}>", hint)
    return _text(prefix, name, title, value, hint, required, schema)


def _text(
    prefix: str, name: str, title: str, value: Any, hint: str, required: bool, schema: Mapping[str, Any]
) -> str:
    shown = "" if value is None else text(value)
    # What a person is to write about may be long; only a bound says that it is not.
    short = int(schema.get("maxLength") or 10_000) <= _LONG_CHARS
    attributes = _attributes(prefix, name, "string", required)
    if short:
        return _labelled(prefix, name, title, f'<input type="text" value="{shown}" {attributes}>', hint)
    area = f'<textarea rows="{min(8, max(2, shown.count(chr(10)) + 1))}" {attributes}>{shown}</textarea>'
    return _labelled(prefix, name, title, area, hint)


def _choice(
    prefix: str, name: str, title: str, choices: list[Any], value: Any, hint: str, required: bool
) -> str:
    options = "".join(
        f'<option value="{text(json.dumps(one))}"{" selected" if one == value else ""}>{text(one)}</option>'
        for one in choices
    )
    none = "" if required else '<option value=""></option>'
    attributes = _attributes(prefix, name, "choice", required)
    return _labelled(prefix, name, title, f"<select {attributes}>{none}{options}</select>", hint)


def _json(prefix: str, name: str, title: str, value: Any, hint: str, required: bool = True) -> str:
    shown = "" if value is None else text(json.dumps(value, indent=2, ensure_ascii=False))
    attributes = _attributes(prefix, name, "json", required)
    area = f'<textarea class="code" rows="6" spellcheck="false" {attributes}>{shown}</textarea>'
    return _labelled(prefix, name, f"{title} — JSON" if name else title, area, hint)


def _labelled(prefix: str, name: str, title: str, control: str, hint: str) -> str:
    label = f'<label for="{_id(prefix, name)}">{text(title)}</label>'
    return f'<div class="field">{label}{control}{_hint(hint)}</div>'


def _hint(hint: str) -> str:
    return f'<p class="hint">{text(hint, 400)}</p>' if hint else ""


def _id(prefix: str, name: str) -> str:
    return text(f"{prefix}-{name}")


def _data(name: str, kind: str) -> str:
    return f'data-name="{text(name)}" data-kind="{kind}"'


def _attributes(prefix: str, name: str, kind: str, required: bool) -> str:
    return f'id="{_id(prefix, name)}" {_data(name, kind)}{" required" if required else ""}'


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _example(schema: Mapping[str, Any]) -> Any:
    """Something to begin with."""
    if "default" in schema:
        return schema["default"]
    return {"array": [], "string": "", "integer": 0, "number": 0, "boolean": False}.get(
        str(schema.get("type")), {}
    )
