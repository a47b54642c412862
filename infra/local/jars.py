"""Downloads Maven artifacts with everything they need at run time: `jars.py DIRECTORY GROUP:NAME:VERSION…`.

A program of its own, so that it can be ended in the middle of a download. jgo checks each file against
the checksum published beside it.
"""

import shutil
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    import jgo

    directory = Path(arguments[0])
    artifacts = [one for one in jgo.resolve("+".join(arguments[1:])) if one.packaging == "jar"]
    for number, artifact in enumerate(artifacts, 1):
        print(f"jar {number} of {len(artifacts)}", flush=True)
        path = artifact.resolve()
        shutil.copyfile(path, directory / path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
