"""Output on terminals and pipes that cannot show every character, such as those of Latin-1 and ASCII: bars and lines
are drawn with ASCII characters there, and all other characters are written as JSON escapes, so that JSON stays JSON."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Final

HANDLER: Final = "hostler.ascii"

_DRAWN: Final = {
    **dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True)),
    **dict.fromkeys("▏▎▍", "-"),
    **dict.fromkeys("▌▋▊▉", "="),
    **dict.fromkeys("━─╴╶╸╺═", "-"),
    **dict.fromkeys("┃│║", "|"),
    **dict.fromkeys("·…", "."),
    **dict.fromkeys("•", "*"),
    "µ": "u",
    "\N{GREEK SMALL LETTER MU}": "u",
    "²": "2",
}


def show_what_can_be_shown() -> None:
    """Have standard output and standard error replace what their encodings lack, instead of raising
    UnicodeEncodeError. Streams that are not the interpreter's own are left alone."""
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=HANDLER)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    drawn = _DRAWN.get(character)
    if drawn is not None:
        return drawn
    if "─" <= character <= "╿":
        return "+"
    if "⠀" <= character <= "⣿":  # what turns while one waits
        return "*"
    utf16 = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{utf16[at : at + 2].hex()}" for at in range(0, len(utf16), 2))
