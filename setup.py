"""Builds every kernel, ``ext/X.pyx`` or ``ext/Y/X.pyx``, as ``hostler.ext.X`` or ``hostler.ext.Y.X``; all else about
the package is in pyproject.toml.

Answers are exact to the bit, so the compiler may not contract a*b+c, nor assume anything about the machine it runs on.

HOSTLER_DEBUG_BUILD=1           bounds and initialisation are checked, HOSTLER_DEBUG is defined, no optimisation
HOSTLER_SANITIZE=address,...    instruments with the compiler's sanitizers
HOSTLER_PURE=1                  builds no kernel (at run time the same variable chooses their Python twins)
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import Cython
import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

EXT = Path("src/hostler/ext")
MEMORYVIEWS = "hostler.ext._cyutility"
"""Cython's own code for memoryviews, which each kernel would contain otherwise."""
DEBUG = os.environ.get("HOSTLER_DEBUG_BUILD", "") not in ("", "0")
SANITIZE = os.environ.get("HOSTLER_SANITIZE", "")
PURE = os.environ.get("HOSTLER_PURE", "") not in ("", "0")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": DEBUG,
}
MACROS: list[tuple[str, str | None]] = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]
FLAGS = ["-fno-trapping-math", "-ffp-contract=off"]
LINK_FLAGS: list[str] = []

if DEBUG:
    MACROS.append(("HOSTLER_DEBUG", "1"))
    FLAGS += ["-O1", "-g", "-UNDEBUG"]
else:
    FLAGS += ["-O3"]
    if not SANITIZE:  # an installed kernel is a quarter of the size without symbols and debugging information
        FLAGS += ["-g0"]
        LINK_FLAGS += ["-Wl,--strip-all"]
if SANITIZE:
    FLAGS += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]
    LINK_FLAGS += [f"-fsanitize={SANITIZE}"]


def build_base() -> str:
    """Whatever shapes the generated code names the build folder, so that no stale file of another variant is used."""
    recipe = f"{DEBUG} {SANITIZE} {Cython.__version__} {numpy.__version__} {Path('setup.py').read_text()}"
    variant = "debug" if DEBUG else "release"
    return f"build/{variant}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


class BuildKernels(build_ext):
    """Copies what it built beside the sources even where a kernel of another variant, but newer, lies there."""

    def copy_extensions_to_source(self) -> None:
        self.force = True
        super().copy_extensions_to_source()


class SourceDistribution(sdist):
    """Has the layout of the repository: the folders at the top, and links to them in ``src/hostler``."""

    def make_release_tree(self, base_dir: str, files: Sequence[str]) -> None:
        super().make_release_tree(base_dir, files)
        for link in Path("src/hostler").iterdir():
            if link.is_symlink():
                place = Path(base_dir, link)
                shutil.move(place, Path(base_dir, link.name))
                place.symlink_to(link.readlink())


def kernels() -> list[Extension]:
    if PURE:
        return []
    shared = sorted(str(path) for pattern in ("*.pxd", "*.[ch]") for path in EXT.rglob(pattern))
    memoryviews = Extension(
        MEMORYVIEWS, [str(EXT / "_cyutility.c")], extra_compile_args=FLAGS, extra_link_args=LINK_FLAGS
    )
    return [memoryviews] + [
        Extension(
            ".".join(["hostler.ext", *source.relative_to(EXT).with_suffix("").parts]),
            [str(source)],
            include_dirs=[str(EXT), str(EXT / "csrc"), numpy.get_include()],
            define_macros=MACROS,
            extra_compile_args=FLAGS,
            extra_link_args=LINK_FLAGS,
            depends=shared,
        )
        for source in sorted(EXT.rglob("*.pyx"))
    ]


setup(
    ext_modules=kernels(),
    cmdclass={"build_ext": BuildKernels, "sdist": SourceDistribution},
    options={
        "build": {"build_base": build_base()},
        "build_ext": {
            "cython_directives": DIRECTIVES,
            "cython_c_in_temp": True,
            "cython_include_dirs": "src",
            "shared_utility_qualified_name": MEMORYVIEWS,
        },
    },
)
