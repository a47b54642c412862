"""Rules for a tenant's catalogue. It holds names and references, never a key."""

import re
from collections.abc import Sequence
from typing import Final

from schema import hosts
from schema.errors import Problem
from schema.language.catalogue import PROVIDERS, RELATIONSHIPS, Catalogue, RoleDefault, TenantProvider
from schema.language.problems import nearest, show
from schema.language.skills import Skill
from schema.language.steps import NAME
from schema.language.tools import TOOLS
from schema.rules.agents import is_model

MAX_TEXT: Final = 20_000
"""Characters of a system prompt or of instructions: every worker holds the whole catalogue."""
MAX_OWN: Final = 200
"""Roles, skills and providers of a tenant, each."""

_KEY_PREFIX: Final = re.compile(
    r"(sk|pk|rk|gsk|xai|hf|ghp|gho|r8|nvapi|pplx)[-_]|github_pat_|AIza|AKIA|ya29\.|eyJ|Bearer\b"
)
_RANDOM: Final = re.compile(r"[A-Za-z0-9]{20,}")


def role_problems(role: RoleDefault, catalogue: Catalogue) -> list[Problem]:
    """Return the problems of a tenant's role; pointers lead into it."""
    found: list[Problem] = []
    if not is_model(role.model, catalogue):
        providers = ", ".join(catalogue.provider_names()[:40])
        found.append(
            Problem(
                "model_unknown",
                "/model",
                show(role.model),
                f"provider/model with a provider of {providers}",
                "Correct it, or add the provider first: `facilitair providers set NAME`.",
            )
        )
    if role.relationship not in RELATIONSHIPS:
        found.append(
            Problem(
                "value_wrong",
                "/relationship",
                show(role.relationship),
                f"one of {', '.join(RELATIONSHIPS)}",
                "The graph has no others; CONTRIBUTED says nothing special.",
            )
        )
    return found + _names("/skills", "skill_unknown", role.skills, list(catalogue.skills))


def skill_problems(skill: Skill) -> list[Problem]:
    """Return the problems of a tenant's skill."""
    found = [
        Problem("value_wrong", f"/{field}", "a blank text", what, "Write it.")
        for field, text, what in (
            ("description", skill.description, "what the skill is for"),
            ("instructions", skill.instructions, "what an agent with the skill is told"),
        )
        if not text.strip()
    ]
    return found + _names("/tools", "tool_unknown", skill.tools, list(TOOLS))


def provider_problems(provider: TenantProvider, allowed_hosts: str) -> list[Problem]:
    """Return the problems of a tenant's provider; `allowed_hosts` are FACILITAIR_PROVIDER_HOSTS."""
    own_kind = {"qwen": "openrouter"}.get(provider.name, provider.name)
    found: list[Problem] = []
    if provider.name == "simulator":
        found.append(
            Problem("value_wrong", "/name", "'simulator'", "another name", "Its answers are made up here.")
        )
    if provider.name in PROVIDERS and provider.kind != own_kind:
        found.append(
            Problem(
                "value_wrong",
                "/kind",
                show(provider.kind),
                f"{own_kind}, which {provider.name} is",
                "Give the provider another name.",
            )
        )
    if provider.base_url is None and provider.kind == "openai_compatible":
        found.append(Problem("field_missing", "/base_url", "nothing", "where it listens", "Add base_url."))
    if provider.base_url is not None:
        if wrong := hosts.fault_of(provider.base_url, allowed_hosts):
            found.append(Problem("provider_host_refused", "/base_url", *wrong))
        if provider.key_ref is None and provider.kind not in ("openai_compatible", "ollama"):
            found.append(
                Problem(
                    "field_missing",
                    "/key_ref",
                    "an address of your own without a key of your own",
                    "the name of a key",
                    "The operator's key is sent to the provider itself only.",
                )
            )
    if provider.key_ref is not None and (reason := _key_ref_fault(provider.key_ref)):
        found.append(reason)
    return found


def looks_like_key(text: str) -> bool:
    return bool(_KEY_PREFIX.match(text.strip())) or any(
        not word.isalpha() and not word.isdecimal() for word in _RANDOM.findall(text)
    )


def _key_ref_fault(reference: str) -> Problem | None:
    """Return the fault of a key reference without quoting it: it may be a key."""
    if looks_like_key(reference):
        return Problem(
            "key_not_reference",
            "/key_ref",
            "what looks like a key",
            "the name of a key, such as openai-team-a",
            "Keys are not stored here. Let the operator put it where the workers find it by a name "
            "(FACILITAIR_KEYS_DIR/<tenant>/<name>), and give that name. Consider this key as seen by others.",
        )
    if not re.fullmatch(NAME, reference):
        return Problem(
            "value_wrong",
            "/key_ref",
            f"a text of {len(reference):,} characters",
            "lower case letters, digits, - and _, at most 63, a letter or digit first",
            "Correct the name.",
        )
    return None


def _names(pointer: str, code: str, names: Sequence[str], known: Sequence[str]) -> list[Problem]:
    found = []
    for index, name in enumerate(names):
        where = f"{pointer}/{index}"
        if name not in known:
            found.append(Problem(code, where, show(name), "a known one", nearest(name, known)))
        elif name in names[:index]:
            again = f"{show(name)} a second time"
            found.append(Problem("value_wrong", where, again, "each once", "Remove it."))
    return found
