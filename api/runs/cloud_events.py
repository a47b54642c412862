"""CloudEvents 1.0 over HTTP: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from schema.cel.expressions import Json

_PREFIX: Final = "ce-"
_REQUIRED: Final = ("id", "source", "specversion", "type")


def event_of(headers: Mapping[str, str], body: Json) -> Json:
    """Return a delivery's event. In binary mode its attributes are headers and the body its `data`: it is
    told as it would be in structured mode, where the body is the whole event, as any other body is."""
    given = {name.lower(): value for name, value in headers.items()}
    attributes: dict[str, Json] = {
        name.removeprefix(_PREFIX): "".join(filter(str.isprintable, unquote(value)))
        for name, value in given.items()
        if name.startswith(_PREFIX)
    }
    if not all(name in attributes for name in _REQUIRED):
        return body
    kind = {"datacontenttype": given["content-type"]} if "content-type" in given else {}
    return {**attributes, **kind, "data": body}


def permission(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that let a sender deliver: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection"""
    origin = headers.get("webhook-request-origin")
    return {"Allow": "POST"} | ({"WebHook-Allowed-Origin": origin} if origin else {})
