"""The command line: what it prints, what it imports, and its exit codes."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

import hostler
from hostler.core import cli
from hostler.placement.types.errors import HostlerError


def greet(name: str = "you") -> None:
    print(f"hello {name}")


def refuse() -> None:
    raise HostlerError("no such host: h1", hint="see `hostler hosts`")


def seven() -> int:
    return 7


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {command.__name__: f"{__name__}:{command.__name__}" for command in (greet, refuse, seven)}
    targets["broken"] = "hostler_no_such_module:app"
    points = EntryPoints(EntryPoint(name, target, cli.COMMAND_GROUP) for name, target in targets.items())
    monkeypatch.setattr(cli, "entry_points", lambda group: points)


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) is None
    assert capsys.readouterr().out.strip() == hostler.__version__


def test_a_command_runs_and_no_other_one_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["greet", "--name", "world"]) is None
    assert capsys.readouterr().out == "hello world\n"


def test_a_command_s_number_is_the_exit_code() -> None:
    assert cli.main(["seven"]) == 7


def test_an_unknown_command_is_named_beside_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nope"]) == 2
    known = "broken, greet, refuse, seven"
    assert capsys.readouterr().err == f"hostler: unknown command 'nope'; the commands are: {known}\n"


def test_a_wrong_option_exits_with_2() -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["greet", "--colour", "red"])


def test_an_error_of_ours_is_one_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refuse"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hostler: no such host: h1 (see `hostler hosts`)\n"


def test_the_command_line_imports_no_sibling_and_no_driver() -> None:
    probe = "import hostler.core.cli, sys; print(*(m for m in sys.modules if m.startswith('hostler.')))"
    output = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    assert not {name.split(".")[1] for name in output.split()} & {"sim", "bench", "drivers"}
