"""What commands print on terminals that cannot show every character, and about extras that are missing or broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from cyclopts import App

from hostler.core import cli
from hostler.core.console.command_list import PURPOSE, SUMMARIES, print_commands

DEMO = ("demo", "--hosts", "50", "--hours", "2")


def hostler(
    *arguments: str, variables: Mapping[str, str] | None = None, path: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    where = {**own, "COLUMNS": "100", **(variables or {})}
    if path is not None:
        where["PYTHONPATH"] = str(path)
    return subprocess.run([sys.executable, "-m", "hostler", *arguments], check=False, capture_output=True, env=where)


LATIN, ASCII = {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
RUN = ("simulate", "run", "--trace", "devops", "--hosts", "60")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [((), LATIN), ((), ASCII), ((), C_LOCALE), (DEMO, LATIN), (DEMO, ASCII), (RUN, ASCII), (RUN, C_LOCALE)],
)
def test_every_output_can_be_shown(arguments: tuple[str, ...], variables: dict[str, str]) -> None:
    done = hostler(*arguments, variables=variables)
    assert done.returncode == 0
    said = done.stdout + done.stderr
    if variables is LATIN:
        said = said.replace(b"\xb7", b".")  # the middle dot is part of Latin-1
    assert said.isascii()
    assert b"\\u" not in said  # what draws has ASCII forms; escapes are for names


def test_json_stays_json_where_names_cannot_be_shown(tmp_path: Path) -> None:
    program = (
        "import sys; from hostler.core.console.output_encoding import show_what_can_be_shown as f; f();"
        'print(\'{"name": "H\\u00f6st \\U0001f600 \\u2581\\u2588"}\')'
    )
    where = {**os.environ, "PYTHONIOENCODING": "ascii"}
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=where).stdout
    assert json.loads(said) == {"name": "H\u00f6st \U0001f600 _#"}


def test_the_list_of_commands_says_what_each_command_s_help_says_and_imports_none() -> None:
    listed = {}
    for command in entry_points(group=cli.COMMAND_GROUP):
        if command.value.startswith("hostler."):
            target = command.load()
            text = getattr(target, "help", None)
            listed[command.name] = (text if isinstance(text, str) else target.__doc__).strip().split("\n\n")[0]
    assert listed == SUMMARIES
    probe = "import sys; from hostler.core.cli import main; main(['--help']); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    loaded = set(output.splitlines()[-1].split())
    assert not loaded & {"numpy", "trio", "msgspec", "cyclopts", "markdown_it", "hostler.placement.decide.engine"}


def test_the_list_of_commands_is_drawn_as_the_command_line_draws_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    commands = entry_points(group=cli.COMMAND_GROUP)
    print_commands(commands)
    ours = capsys.readouterr().out
    app = App(name="hostler", help=PURPOSE, version="1", help_format="plaintext")
    for command in commands:
        app.command(lambda: None, name=command.name, help=SUMMARIES[command.name])
    app.register_install_completion_command()
    app(["--help"], result_action="return_value")
    assert capsys.readouterr().out == ours


def test_the_command_of_another_package_is_listed_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    print_commands([EntryPoint("stat", "stat:S_ISREG", cli.COMMAND_GROUP)])
    assert re.search(r"stat +S_ISREG\(mode\) -> bool", capsys.readouterr().out)


# extras


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("h11", ("serve", "--rpc", "unix:PATH/s"), "service"),
        ("structlog", ("serve", "--rpc", "unix:PATH/s"), "service"),
        ("prometheus_client", ("serve", "--rpc", "unix:PATH/s"), "service"),
        ("h11", ("serve", "--placement", "127.0.0.1:0"), "service"),
        ("matplotlib", ("simulate", "run", "--trace", "devops", "--hosts", "9", "--report", "PATH/a.png"), "report"),
        ("bokeh", ("simulate", "run", "--trace", "devops", "--hosts", "9", "--report", "PATH/a.html"), "report"),
    ],
)
def test_a_missing_or_broken_extra_is_one_line(
    tmp_path: Path, module: str, arguments: tuple[str, ...], extra: str
) -> None:
    arguments = tuple(each.replace("PATH", str(tmp_path)) for each in arguments)
    file = tmp_path / f"{module}.py"
    file.write_text(f"raise ModuleNotFoundError('No module named {module}', name={module!r})\n")
    missing = hostler(*arguments, path=tmp_path)
    said = f"hostler: {module} of the extra '{extra}' is not installed (pip install 'hostler[{extra}]')\n"
    assert (missing.returncode, missing.stderr.decode()) == (1, said)
    file.write_text("raise ImportError('libfoo.so.6: undefined symbol: bar')\n")
    broken = hostler(*arguments, path=tmp_path)
    said = f"hostler: {module} of the extra '{extra}' is installed, but cannot be imported: "
    assert broken.stderr.decode() == said + "ImportError: libfoo.so.6: undefined symbol: bar\n"
    assert broken.returncode == 1
