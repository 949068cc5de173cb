"""The databases that the real Placement keeps its data in: a sqlite file, or a PostgreSQL that ends with the run."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .environments import ServiceUnavailable

Kind = Literal["sqlite", "postgresql"]
DRIVERS: Final[dict[Kind, tuple[str, ...]]] = {"sqlite": (), "postgresql": ("psycopg2-binary",)}
"""Packages that the service needs to talk to it."""
PROGRAMS: Final = ("initdb", "pg_ctl")
_ACCOUNTS: Final = ("postgres", "nobody")
"""Whom PostgreSQL runs as where this process is root's, which it refuses to be."""


@dataclass(frozen=True)
class Database:
    """``url`` as SQLAlchemy has it; ``pid`` of its own process, None where it has none."""

    url: str
    pid: int | None = None


@contextmanager
def database(kind: Kind, folder: Path) -> Iterator[Database]:
    """An empty database. Raises ServiceUnavailable where PostgreSQL is not installed, or does not start."""
    if kind == "sqlite":
        yield Database(f"sqlite:///{folder / 'placement.sqlite'}")
        return
    programs = {name: _program(name) for name in PROGRAMS}
    with tempfile.TemporaryDirectory(prefix="hostler-pg-") as home:
        account = _account()
        if account is not None:
            os.chown(home, account.pw_uid, account.pw_gid)
        cluster, name = f"{home}/data", None if account is None else account.pw_name
        _run(
            [programs["initdb"], "-D", cluster, "-U", "placement", "-A", "trust", "-E", "UTF8", "--no-sync"], home, name
        )
        options = f"-k {home} -c listen_addresses='' -c shared_buffers=256MB -c max_connections=400"
        control = [programs["pg_ctl"], "-D", cluster, "-w", "-s"]
        _run([*control, "-l", f"{home}/log", "-o", options, "start"], home, name)
        try:
            pid = int(Path(cluster, "postmaster.pid").read_text().split()[0])
            yield Database(f"postgresql+psycopg2://placement@/postgres?host={home}", pid)
        finally:
            _run([*control, "-m", "immediate", "stop"], home, name)


def _program(name: str) -> str:
    """Where a program of PostgreSQL's is; distributions keep them out of the way."""
    elsewhere = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(elsewhere[-1]) if elsewhere else None)
    if found is None:
        raise ServiceUnavailable(f"PostgreSQL is not installed: there is no {name}", hint="--database sqlite")
    return found


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServiceUnavailable("PostgreSQL does not run as root", hint="run this as another user")


def _run(command: list[str], home: str, user: str | None) -> None:
    # Output to a file: the server that pg_ctl leaves behind would keep a pipe open.
    with Path(home, "output").open("w+") as output:
        done = subprocess.run(command, stdout=output, stderr=output, cwd=home, user=user, check=False)
        if done.returncode:
            output.seek(0)
            raise ServiceUnavailable(f"PostgreSQL: {Path(command[0]).name} failed: {output.read().strip()[-300:]}")
