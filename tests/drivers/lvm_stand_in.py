"""A program that stands in for ``lvm`` where the kernel has no device-mapper: logical volumes are files, and their
extents hold what was written before, as those of thick logical volumes do."""

import fcntl
import json
import os
import sys
from pathlib import Path

ROOT = Path(os.environ["LVM_SYSTEM_DIR"])
MIB = 2**20
OLD = b"secret of an earlier tenant " * 100
"""What the extents of the volume group hold."""


def fail(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.exit(5)


def value(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def extents(size: int) -> bytes:
    return (OLD * (size // len(OLD) + 1))[:size]


def gigabytes(text: str) -> int:
    """A GiB of the stand-in is a real one, as sizes are reported; what is written of it is a hole but for its ends."""
    return int(text.removesuffix("g")) * 2**30


def grow(path: Path, before: int, after: int) -> None:
    with path.open("r+b") as file:
        file.truncate(after)
        for place in (before, (before + after) // 2, after - len(OLD)):
            file.seek(place)
            file.write(OLD)


def main(command: str, arguments: list[str]) -> None:
    tags_of = json.loads((ROOT / "tags.json").read_text()) if (ROOT / "tags.json").exists() else {}
    if command == "version":
        print("  LVM version:     2.03.16(2) stand-in")
    elif command == "vgs":
        free = 2**40 - sum((ROOT / name).stat().st_size for name in tags_of)
        print(json.dumps({"report": [{"vg": [{"vg_name": "group", "vg_size": str(2**40), "vg_free": str(free)}]}]}))
    elif command == "lvs":
        select, target = value(arguments, "-S").removeprefix("lv_name="), arguments[-1].partition("/")[2]
        names = [name for name in sorted(tags_of) if name in (select or target or name,)]
        lines = [
            {
                "lv_name": name,
                "lv_size": str((ROOT / name).stat().st_size),
                "lv_tags": ",".join(tags_of[name]),
                "lv_attr": "-wi-ao----" if (ROOT / f"{name}.open").exists() else "-wi-a-----",
                "lv_path": str(ROOT / name),
            }
            for name in names
        ]
        print(json.dumps({"report": [{"lv": lines}]}))
    elif command == "lvcreate":
        name = value(arguments, "-n")
        if name in tags_of:
            fail(f'Logical Volume "{name}" already exists in volume group "group"')
        (ROOT / name).touch()
        grow(ROOT / name, 0, gigabytes(value(arguments, "-L")))
        with (ROOT / name).open("r+b") as file:  # what -Zy does
            file.write(bytes(4096))
        tags_of[name] = [arguments[place + 1] for place, each in enumerate(arguments) if each == "--addtag"]
    else:
        name = arguments[-1].partition("/")[2]
        if name not in tags_of:
            fail(f'Failed to find logical volume "{arguments[-1]}"')
        if command == "lvremove":
            del tags_of[name]
            (ROOT / name).unlink()
        elif command == "lvextend":
            grow(ROOT / name, (ROOT / name).stat().st_size, gigabytes(value(arguments, "-L")))
        for place, each in enumerate(arguments):
            if each == "--addtag" and command == "lvchange":
                tags_of[name].append(arguments[place + 1])
            elif each == "--deltag":
                tags_of[name].remove(arguments[place + 1])
    (ROOT / "tags.new").write_text(json.dumps(tags_of))
    (ROOT / "tags.new").replace(ROOT / "tags.json")


with (ROOT / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # commands on a volume group take turns
    main(sys.argv[1], sys.argv[2:])
