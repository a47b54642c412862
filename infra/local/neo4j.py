"""Neo4j 5.26 LTS community, from the jars of Maven Central, in a small JVM."""

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from infra.local import cache, digests, private, process
from infra.local.java import find_java
from infra.local.process import Command, SetupProgress
from infra.local.service import Service, http_answers
from infra.local.state import write_private

VERSION = "5.26.10"
DIGESTS = Path(__file__).with_name("neo4j.sha256")
_ARTIFACTS = ("org.neo4j:neo4j", "org.neo4j:neo4j-bolt", "org.neo4j.app:neo4j-server")
_OPENED = ("java.nio", "java.io", "sun.nio.ch", "java.util.concurrent")
_JVM = (
    "-Xmx768m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",  # a file in the shared temporary directory, whatever java.io.tmpdir says
    "-XX:TieredStopAtLevel=1",  # light compilation: a start takes a third less CPU
)

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>facilitair</groupId><artifactId>local-neo4j</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

_CONF = """server.default_listen_address=127.0.0.1
server.bolt.listen_address=127.0.0.1:{bolt}
server.bolt.advertised_address=127.0.0.1:{bolt}
server.http.listen_address=127.0.0.1:{http}
server.http.advertised_address=127.0.0.1:{http}
server.https.enabled=false
server.memory.pagecache.size=128m
db.shutdown_transaction_end_timeout=1s
internal.dbms.bolt.netty_server_shutdown_quiet_period=0
internal.dbms.bolt.netty_server_shutdown_timeout=1
dbms.memory.transaction.total.max=384m
db.memory.transaction.max=256m
db.tx_log.rotation.retention_policy=100M size
dbms.usage_report.enabled=false
"""


def jars_dir() -> Path:
    return cache.cache_dir() / "neo4j" / VERSION


def service(data: Path, *, bolt_port: int, http_port: int, password: str) -> Service:
    home = data / "neo4j"

    def command() -> Command:
        opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED]
        # Not the shared temporary directory: what Java unpacks there is loaded as program code.
        argv = [str(find_java()), *_JVM, f"-Djava.io.tmpdir={home / 'tmp'}", *opened]
        argv += ["-cp", f"{jars_dir() / 'lib'}/*", "org.neo4j.server.CommunityEntryPoint"]
        argv += [f"--home-dir={home}", f"--config-dir={home / 'conf'}"]
        return Command(argv, process.server_environment(), home, niceness=process.UNHURRIED)

    def prepare(progress: SetupProgress) -> None:
        find_java()
        cache.install(jars_dir(), lambda directory: _download(directory, progress), progress)
        # At every start, and not only behind the download: 130 MB take a fifth of a second.
        digests.check(jars_dir() / "lib", DIGESTS)
        private.directory(home)
        conf = private.directory(home / "conf")
        private.directory(home / "tmp")
        (conf / "neo4j.conf").write_text(_CONF.format(bolt=bolt_port, http=http_port))
        if not (home / "data" / "databases").exists():
            _set_password(home, password, progress)

    return Service(
        name="neo4j",
        command=command,
        prepare=prepare,
        ready=lambda: http_answers(
            f"http://127.0.0.1:{http_port}/db/neo4j/query/v2",
            post={"statement": "RETURN 1"},
            user=("neo4j", password),
        ),
        address=f"127.0.0.1:{bolt_port}",
        essential=False,
        start_seconds=180.0,
        stop_seconds=30.0,
        death_signal=signal.SIGTERM,
        # After a full disk its databases stay shut, logins among them, until it is started again.
        patience_seconds=20.0,
        private_log=home / "logs" / "neo4j.log",
    )


def _download(directory: Path, progress: SetupProgress) -> Mapping[str, object]:
    """All jars into directory/lib, by Maven where there is one, else in pure Python."""
    lib = directory / "lib"
    lib.mkdir()
    if maven := shutil.which("mvn"):
        dependencies = "".join(_DEPENDENCY.format(*name.split(":"), VERSION) for name in _ARTIFACTS)
        (directory / "pom.xml").write_text(_POM.format(dependencies=dependencies))
        argv = [maven, "-B", "-C", "dependency:copy-dependencies", f"-DoutputDirectory={lib}"]
        argv += ["-DincludeScope=runtime"]
        by = "Maven"
    else:
        argv = process.python_program(Path(__file__).with_name("jars.py"))
        argv += [str(lib), *(f"{name}:{VERSION}" for name in _ARTIFACTS)]
        by = "jgo"
    seen = 0

    def count(line: str) -> None:
        nonlocal seen
        if line.startswith(("Downloaded", "[INFO] Downloaded", "jar ")) and "jar" in line:
            seen += 1
            progress.say(f"downloading Neo4j {VERSION} with {by}: {seen} of about 245 jars")

    progress.say(f"downloading Neo4j {VERSION} with {by}")
    process.run_tool(argv, progress, directory=directory, on_line=count)
    digests.check(lib, DIGESTS)
    return {"version": VERSION, "by": by, "jars": len(list(lib.glob("*.jar")))}


def _set_password(home: Path, password: str, progress: SetupProgress) -> None:
    progress.say("setting the password")
    # As a file of arguments: every user of the machine can read the process list.
    arguments = home / "password"
    write_private(arguments, password)
    try:
        process.run_tool(
            [
                str(find_java()),
                *("-cp", f"{jars_dir() / 'lib'}/*", "org.neo4j.cli.AdminTool"),
                *("dbms", "set-initial-password", f"@{arguments}"),
            ],
            progress,
            directory=home,
            environment=process.server_environment(NEO4J_HOME=str(home), NEO4J_CONF=str(home / "conf")),
        )
    finally:
        arguments.unlink()
