"""Writes what is installed or downloaded as a CycloneDX document: `python -m infra.gate.sbom FILE`.

uv lists Python's packages; Neo4j's jars, Weaviate and Go come from the lists that their downloads are
checked against.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any, Final

from infra.local import digests, go, neo4j, weaviate

ROOT: Final = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args().file
    document = _packages()
    document["components"] += downloads()
    file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{file}: {len(document['components'])} components")


def _packages() -> dict[str, Any]:
    exported = subprocess.run(
        ["uv", "export", "--format", "cyclonedx1.5", "--no-dev", "--quiet"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(exported.stdout))


def downloads() -> list[dict[str, Any]]:
    """Return the components that are no Python packages of ours."""
    jars = [
        _component(name, neo4j.VERSION, f"pkg:generic/{name}", sha256)
        for name, sha256 in digests.listed(neo4j.DIGESTS).items()
    ]
    package, version = go.locked()
    return [
        *jars,
        _component("weaviate", weaviate.VERSION, f"pkg:golang/{weaviate.MODULE}@v{weaviate.VERSION}"),
        _component(package, version, f"pkg:pypi/{package}@{version}"),
    ]


def _component(name: str, version: str, purl: str, sha256: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"type": "library", "name": name, "version": version, "purl": purl}
    if sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return found


if __name__ == "__main__":
    main()
