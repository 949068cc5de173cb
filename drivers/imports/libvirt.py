"""libvirt hosts, from ``virsh capabilities`` and, for the guests, ``virsh dumpxml`` or ``virsh domstats``. A file that
has the capabilities of a host is named after it; the files of guests that follow are of that host."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import ParseError

from ...placement.types.errors import InvalidValue
from ...placement.types.extras import import_extra
from ...placement.types.request import Flavor
from .cloud import CloudDraft, GuestDraft, HostDraft
from .tables import Line, content, decoded

_READ: Final = ("capabilities", "domain", "domains", "hosts")
_SEVERAL: Final = "several"
_UNITS: Final = {"b": 1, "bytes": 1, "kb": 1_000, "k": 1_024, "kib": 1_024, "mb": 10**6, "m": 2**20, "mib": 2**20}
_UNITS_ABOVE: Final = {"gb": 10**9, "g": 2**30, "gib": 2**30, "tb": 10**12, "t": 2**40, "tib": 2**40}


def read(paths: Sequence[Path]) -> CloudDraft:
    """The hosts and guests of all files."""
    cloud, host = CloudDraft(), ""
    for path in paths:
        text = decoded(content(path)).replace("\r\n", "\n")
        if re.search(r"^Domain: '", text, re.MULTILINE):
            _domstats(cloud, path, text, host)
            continue
        root = _parsed(path, text)
        lines = iter(()) if root.tag == "domain" else _lines_of_domains(text)
        for element in [root, *root, *(each for inner in root if inner.tag in ("domains", "hosts") for each in inner)]:
            if element.tag == "capabilities":
                host = _host(cloud, path, element)
            elif element.tag == "domain":
                _domain(cloud, Line(path.name, next(lines, 1), {}), element, host)
        tags = [each.tag for each in root] if root.tag == _SEVERAL else [root.tag]
        if not set(tags) <= set(_READ):
            wrong = next(tag for tag in tags if tag not in _READ)
            raise InvalidValue(f"{path} is <{wrong}>, not capabilities or domains of libvirt", field="files")
    return cloud


def _lines_of_domains(text: str) -> Iterator[int]:
    """The lines on which the domains of a list begin, without those that capabilities name."""
    without = re.sub(
        r"<capabilities>.*?</capabilities>", lambda part: "\n" * part[0].count("\n"), text, flags=re.DOTALL
    )
    return (without.count("\n", 0, found.start()) + 1 for found in re.finditer(r"<domain(?=[\s>])", without))


def _parsed(path: Path, text: str) -> Any:
    """The root element; of several documents one after another, as a loop over guests writes them, an element around
    them. Entities and document types are refused: the file is not trusted."""
    tree = import_extra("defusedxml.ElementTree", "imports", field="files")
    plain = re.sub(r"<\?xml[^>]*\?>", "", text)
    try:
        try:
            return tree.fromstring(plain.lstrip(), forbid_dtd=True)
        except ParseError as error:
            if "junk after document element" not in str(error):
                raise
            return tree.fromstring(f"<{_SEVERAL}>{plain}</{_SEVERAL}>", forbid_dtd=True)
    except Exception as error:  # ParseError, or what defusedxml forbids
        raise InvalidValue(f"{path} is not XML that can be read safely: {error}", field="files") from None


def _mib(element: Any) -> int:
    """An amount of memory; libvirt's unit is KiB where none is said. ValueError if it is not one."""
    unit = str(element.get("unit", "KiB")).lower()
    factor = (_UNITS | _UNITS_ABOVE).get(unit)
    if factor is None:
        raise ValueError(f"the unit {unit!r} of memory is not known")
    return int(element.text or "0") * factor // 2**20


def _host(cloud: CloudDraft, path: Path, root: Any) -> str:
    name, line = path.name.partition(".")[0], Line(path.name, 1, {})
    try:
        cells = root.findall("./host/topology/cells/cell")
        memory_mb = sum(_mib(memory) for memory in root.findall("./host/topology/cells/cell/memory"))
        vcpus = sum(len(cell.findall("./cpus/cpu")) for cell in cells)
        if not cells:
            shape = root.find("./host/cpu/topology")
            parts = ("sockets", "dies", "cores", "threads")
            vcpus = 0 if shape is None else math.prod(int(shape.get(part, "1")) for part in parts)
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return name
    cloud.add_host(HostDraft(name=name, line=line, vcpus=vcpus, memory_mb=memory_mb))
    return name


def _domain(cloud: CloudDraft, line: Line, root: Any, host: str) -> None:
    name = root.findtext("name", "").strip()
    memory, cpus = root.find("memory"), root.find("vcpu")
    try:
        # Those that may be plugged in later are not there.
        vcpus = 0 if cpus is None else int(cpus.get("current") or cpus.text or "0")
        memory_mb = 0 if memory is None else _mib(memory)
    except ValueError as error:
        cloud.report.drop(line, name, str(error))
        return
    _add(cloud, line, root.findtext("uuid", "").strip() or f"{host}/{name}", name, host, vcpus, memory_mb)


def _add(cloud: CloudDraft, line: Line, key: str, name: str, host: str, vcpus: int, memory_mb: int) -> None:
    if not host:
        cloud.report.drop(line, name, "no capabilities of a host came before it")
    elif vcpus <= 0 or memory_mb <= 0:
        cloud.report.drop(line, name, "it has no vCPUs or no memory")
    else:
        flavor = Flavor(name=f"{vcpus} vCPUs, {memory_mb} MiB", vcpus=vcpus, memory_mb=memory_mb)
        cloud.guests.append(GuestDraft(key=key, host=host, line=line, flavor=flavor))


def _domstats(cloud: CloudDraft, path: Path, text: str, host: str) -> None:
    for found in re.finditer(r"^Domain: '(?P<name>.*)'\n(?P<stats>(?:[ \t].*\n?)*)", text, re.MULTILINE):
        line = Line(path.name, text.count("\n", 0, found.start()) + 1, {})
        stats: dict[str, str] = dict(re.findall(r"^\s+([\w.]+)=(.*)$", found["stats"], re.MULTILINE))
        if stats.get("state.state") not in (None, "1", "2", "3"):
            cloud.report.drop(line, found["name"], "it does not run")
            continue
        try:
            vcpus = int(stats.get("vcpu.current", "0"))
            memory_mb = int(stats.get("balloon.maximum", stats.get("balloon.current", "0"))) // 1_024
        except ValueError as error:
            cloud.report.drop(line, found["name"], str(error))
            continue
        _add(cloud, line, f"{host}/{found['name']}", found["name"], host, vcpus, memory_mb)
