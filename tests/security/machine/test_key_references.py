"""A tenant's key is found by that tenant alone."""

import itertools

import pytest

from gateway.keys import Keys, variable_of
from schema.errors import ProviderError

NAMES = (
    "team",
    "team-1",
    "TEAM",
    "Team",
    "1-main",
    "main",
    "1.main",
    "1_main",
    "a",
    "a_",
    "_a",
    "a__b",
    "b",
    "-",
    "_",
    ".",
    "_2d",
    "2d",
    "2d__main",
    "default",
    "default-",
    "default_2d",
    "é",
    "e",
    "ſ",
    "s",
    "",
)


def test_no_two_tenants_or_references_share_a_variable() -> None:
    pairs = list(itertools.product(NAMES, repeat=2))
    assert len({variable_of(*pair) for pair in pairs}) == len(pairs)
    assert all(variable_of(*pair).replace("_", "").isalnum() for pair in pairs)


def test_a_tenant_does_not_find_what_was_set_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys("")
    for name in ("FACILITAIR_KEY_TEAM_1_MAIN", variable_of("team-1", "main")):
        monkeypatch.setenv(name, "secret-of-team-1")
    assert keys.find("team-1", "main") == "secret-of-team-1"
    for tenant, reference in (("team", "1-main"), ("TEAM", "1.main"), ("team", "1_main"), ("Team-1", "main")):
        with pytest.raises(ProviderError) as caught:
            keys.find(tenant, reference)
        assert caught.value.code == "provider_auth"


def test_the_names_of_earlier_releases_hold_for_the_default_tenant_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = Keys("")
    monkeypatch.setenv("FACILITAIR_KEY_DEFAULT_MY_KEY", "old")
    assert keys.find("default", "my-key") == "old"
    monkeypatch.setenv(variable_of("default", "my-key"), "new")
    assert keys.find("default", "my-key") == "new"
    for tenant in ("Default", "default-my", "DEFAULT"):
        with pytest.raises(ProviderError):
            keys.find(tenant, "key")


def test_an_older_name_is_never_another_tenants_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of("default-", "main"), "secret-of-default-dash")
    with pytest.raises(ProviderError):
        Keys("").find("default", "2d__main")
