"""Write the published JSON Schema of the language, or check that it is current.

python -m schema.language.publish           writes docs/facilitair-v1.schema.json
python -m schema.language.publish --check   exits with 1 when the file differs
"""

import json
import sys
from pathlib import Path
from typing import Final

from schema.language.editors import json_schema

PUBLISHED: Final = Path(__file__).resolve().parents[2] / "docs" / "facilitair-v1.schema.json"


def published_text() -> str:
    """Return the required content of the file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        if PUBLISHED.exists() and PUBLISHED.read_text(encoding="utf-8") == published_text():
            return 0
        print(f"{PUBLISHED.name} is not current: run python -m schema.language.publish", file=sys.stderr)
        return 1
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    PUBLISHED.parent.mkdir(parents=True, exist_ok=True)
    PUBLISHED.write_text(published_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
