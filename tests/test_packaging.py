"""What is shipped beside the code: versions, the systemd unit and its files, the source distribution and the wheel."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import hostler

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command: str | Path, **options: Any) -> str:
    merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
    return str(subprocess.run(command, check=True, **merged).stdout)


def test_the_version_is_said_alike_everywhere() -> None:
    assert hostler.__version__ == PROJECT["version"] == run(sys.executable, "-m", "hostler", "--version").strip()
    assert f"## [{hostler.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_a_lower_bound() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert [each for group in groups for each in group if ">=" not in each] == []


def test_the_example_configuration_is_accepted(tmp_path: Path) -> None:
    assert run(sys.executable, "-m", "hostler", "config", "check", PACKAGING / "hostler.toml")


def test_the_unit_runs_as_the_user_that_sysusers_makes() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the parser's own way to keep the case of keys
    unit.read(PACKAGING / "hostler.service")
    service = unit["Service"]
    lines = (PACKAGING / "hostler.sysusers.conf").read_text(encoding="utf-8").splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("u ")]
    assert service["User"] == user
    example = tomllib.loads((PACKAGING / "hostler.toml").read_text(encoding="utf-8"))
    assert example["data"]["folder"] == f"/var/lib/{service['StateDirectory']}"
    assert f"unix:/run/{service['RuntimeDirectory']}/" in example["rpc"]["listen"][0]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that is built from it, without kernels."""
    folder = tmp_path_factory.mktemp("built")
    where = {**os.environ, "HOSTLER_PURE": "1"}
    copy = folder / "checkout"
    names = "src core placement ext drivers sim bench docs tests packaging requirements .ci README.md CHANGELOG.md"
    for name in [*names.split(), "LICENSE", "Makefile", "MANIFEST.in", "pyproject.toml", "setup.py"]:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", folder, cwd=copy, env=where)
    (archive,) = folder.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-build-isolation", "--no-deps")
    run(*pip, "--wheel-dir", folder, archive, env=where)
    return folder


def test_the_source_distribution_holds_all_that_builds_tests_and_documents_it(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    here = {
        str(path.relative_to(ROOT))
        for folder in ("docs", "tests", "packaging", "requirements")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not {"__pycache__", "site"} & {*path.parts}
    }
    assert here - names == set()
    for name in ("Makefile", "setup.py", ".ci/run", "ext/ranking/_ranking.pyx", "ext/csrc/clones.h", "bench/README.md"):
        assert name in names or not (ROOT / name).exists(), name


def test_the_source_distribution_passes_the_tests_of_its_layout(built: Path, tmp_path: Path) -> None:
    """Those that read the folders at the top. It has no kernels before it is built."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    where = {**os.environ, "HOSTLER_PURE": "1", "PYTHONPATH": str(root / "src")}
    chosen = ("tests/test_imports.py", "tests/docs/test_docs.py", "-k", "map or circle or links")
    pytest_of = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0")
    done = subprocess.run((*pytest_of, *chosen), check=False, capture_output=True, text=True, cwd=root, env=where)
    assert not done.returncode, done.stdout[-3000:]
    assert (root / "src" / "hostler" / "core").readlink() == Path("../../core")


def test_the_wheel_holds_every_module_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    source = ROOT / "src" / "hostler"
    links = [source / name for name in ("core", "placement", "ext", "drivers", "sim", "bench")]
    modules = {f"hostler/{path.relative_to(source)}" for link in links for path in link.glob("**/*.py")}
    assert modules - names == set()
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]
    assert {"hostler/__main__.py", "hostler/py.typed"} <= names


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not installed")
def test_kernels_are_installed_without_symbols_and_debugging_information() -> None:
    if os.environ.get("HOSTLER_DEBUG_BUILD") or os.environ.get("HOSTLER_SANITIZE"):
        pytest.skip("a debug build keeps its symbols")
    kernels = list((ROOT / "src" / "hostler" / "ext").rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"))
    if not kernels:
        pytest.skip("no kernel is built")
    for kernel in kernels:
        sections = run("readelf", "--section-headers", "--wide", kernel)
        assert not re.search(r"\.(debug_\w+|symtab)\b", sections), kernel.name


@pytest.mark.parametrize(("library", "chosen"), [("glibc", True), ("musl", False)])
def test_clones_of_kernels_are_chosen_at_load_time_only_where_the_c_library_can(
    library: str, chosen: bool, tmp_path: Path
) -> None:
    """musl has no IFUNC. Its headers define no macro of their own, as the empty ones here."""
    compiler = shutil.which("cc")
    if compiler is None or "x86_64" not in run(compiler, "-dumpmachine") or "clang" in run(compiler, "--version"):
        pytest.skip("GCC for x86-64 is not installed")
    (tmp_path / "stdlib.h").touch()
    source = tmp_path / "clones.c"
    source.write_text('#include "clones.h"\nHOSTLER_CLONES\n', encoding="utf-8")
    headers = ("-nostdinc", "-I", tmp_path) if library == "musl" else ()
    text = run(compiler, "-E", "-P", *headers, "-I", ROOT / "src" / "hostler" / "ext" / "csrc", source)
    assert ("target_clones" in text) is chosen


def test_kernels_mark_their_clones_by_the_one_macro() -> None:
    marked = [
        path.name
        for path in (ROOT / "src" / "hostler" / "ext").rglob("*")
        if path.suffix in {".h", ".c", ".pyx", ".pxd"} and "target_clones" in path.read_text(encoding="utf-8")
    ]
    assert marked == ["clones.h"]
