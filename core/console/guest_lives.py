"""``hostler guest create``, ``adopt``, ``strangers``, ``start``, ``stop``, ``move``, ``resize``, ``snapshot``,
``snapshots``, ``delete-snapshot``, ``console``, ``attach``, ``detach``, ``delete``, ``lives`` and ``events``: guests
that back ends carry out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from ...placement.storage.with_guests import Locality
from ...placement.types.errors import UnknownName
from ...placement.types.uuids import plain_uuid
from ..lifecycle_commands import GuestVolume, MoveKind
from ..rpc.client import BlockingClient
from ..tenancy.errors import NotAllowed
from .guest_volumes import read_volume
from .remote import LOCAL, REFUSED, SMALL, Asked, Remote

FAILED: Final = 4
"""Exit code if a guest that was waited for is in error."""
LOOK_SECONDS: Final = 0.2
Wait = Annotated[bool, Parameter(help="wait until it is done, at most --within seconds", negative="")]


def add_commands(guest: App) -> None:
    """Add these commands to those of ``hostler guest``."""
    guest.command(create_guest, name="create")
    guest.command(adopt_guest, name="adopt")
    guest.command(list_strangers, name="strangers")
    guest.command(start_guest, name="start")
    guest.command(stop_guest, name="stop")
    guest.command(move_guest, name="move")
    guest.command(resize_guest, name="resize")
    guest.command(snapshot_guest, name="snapshot")
    guest.command(list_snapshots, name="snapshots")
    guest.command(delete_snapshot, name="delete-snapshot")
    guest.command(show_console, name="console")
    guest.command(attach_volume, name="attach")
    guest.command(detach_volume, name="detach")
    guest.command(delete_guest, name="delete")
    guest.command(list_lives, name="lives")
    guest.command(guest_events, name="events")


def create_guest(
    *,
    name: Annotated[str, Parameter(help="shown to users; need not be unique")] = "",
    network: Annotated[list[str] | None, Parameter(help="a network, repeatable", negative="")] = None,
    user_data: Annotated[str | None, Parameter(help="a file in the service's folder of user data")] = None,
    stopped: Annotated[bool, Parameter(help="build it without starting it", negative="")] = False,
    attempts: Annotated[int, Parameter(validator=Number(gte=1, lte=20), help="hosts to try")] = 3,
    volume: Annotated[
        list[str] | None,
        Parameter(
            help="a volume that is made for it, repeatable: SIZE in GiB, or size=20,type=gold,image=debian,name=root,"
            "zone=az1,uuid=UUID,keep=yes; the first one is for the disk that it boots from",
            negative="",
        ),
    ] = None,
    near: Annotated[
        Literal["host", "zone", "aggregate"] | None, Parameter(help="its volumes must be on its host, in its zone, ...")
    ] = None,
    wait: Wait = False,
    key: str | None = None,
    ask: Asked = SMALL,
    remote: Remote = LOCAL,
) -> int:
    """Place a guest and have its back end build it, its volumes first. --image is a name that the back end knows. Exit
    code 3: no host; with --wait, 4: it is in error."""
    volumes: list[GuestVolume] = [read_volume(text, ask.project, ask.user) for text in volume or ()]
    values = {
        "volumes": tuple(volumes),
        "locality": None if near is None else Locality(level=near),
        "request": ask.asked(),
        "name": name,
        "image": ask.image or "",
        "networks": tuple(network or ()),
        "user_data": user_data,
        "stopped": stopped,
        "attempts": attempts,
    }
    with remote.client() as client:
        decision = client.call("create_guest", values, key=key)
        if decision.refusal is not None:
            remote.show(decision) if remote.as_json else print(f"not placed: {decision.refusal.sentence}")
            return REFUSED
        uuid, node = decision.selections[0].instance_uuid, decision.selections[0].node
        if wait:
            return _until_settled(remote, client, uuid)
    remote.show(decision) if remote.as_json else print(f"{uuid} placed on {node}")
    return 0


def adopt_guest(
    backend: str,
    key: str,
    *,
    name: Annotated[str | None, Parameter(help="shown to users; its name on the back end if left out")] = None,
    wait: Wait = False,
    ask: Asked = SMALL,
    remote: Remote = LOCAL,
) -> int:
    """Make the guest KEY, which others made on BACKEND, one of a project; it goes on as it is. Its size is the one that
    it has, unless one is given. Exit code 3: no room in it for the project; with --wait, 4: it was not adopted."""
    with remote.client() as client:
        stranger = _stranger(client, backend, key)
        given = {"vcpus": stranger.vcpus, "memory_mb": stranger.memory_mb}
        sized = {field: value for field, value in given.items() if getattr(ask, field) is None}
        request = replace(ask, **sized).asked() if ask.flavor is None else ask.asked()
        shown = stranger.name[:255] if name is None else name
        values = {"backend": backend, "key": key, "node": stranger.node, "name": shown, "request": request}
        decision = client.call("adopt_guest", values)
        if decision.refusal is not None:
            remote.show(decision) if remote.as_json else print(f"not adopted: {decision.refusal.sentence}")
            return REFUSED
        uuid = decision.selections[0].instance_uuid
        if wait:
            return _until_settled(remote, client, uuid)
    remote.show(decision) if remote.as_json else print(f"{uuid} is adopted on {stranger.node}")
    return 0


def _stranger(client: BlockingClient, backend: str, key: str) -> Any:
    """The stranger of a key. UnknownName if it was not seen at the last inventory."""
    after = ""
    while found := client.call("strangers", {"backend": backend, "after": after, "limit": 1_000}):
        for each in found:
            if each.key == key:
                return each
        after = found[-1].key
    hint = f"see hostler guest strangers {backend}"
    raise UnknownName(f"back end {backend} has no guest {key[:100]} that is not ours", field="key", hint=hint)


def list_strangers(
    backend: str,
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 100,
    after: Annotated[str, Parameter(help="go on behind this key")] = "",
    remote: Remote = LOCAL,
) -> int:
    """Guests on BACKEND that others made, as of its last inventory; those without an installation can be adopted."""
    return remote.listed(
        remote.ask("strangers", {"backend": backend, "after": after, "limit": limit}),
        ["key", "name", "node", "state", "vcpus", "memory MiB", "installation"],
        lambda each: [each.key, each.name, each.node, each.state, each.vcpus, each.memory_mb, each.installation],
        page=limit,
        by="key",
    )


def start_guest(uuid: str, *, wait: Wait = False, remote: Remote = LOCAL) -> int:
    """Have a guest run. One in error is built again."""
    return _do(remote, "start_guest", uuid, wait=wait)


def stop_guest(uuid: str, *, wait: Wait = False, remote: Remote = LOCAL) -> int:
    """Have a guest stopped; it keeps its resources."""
    return _do(remote, "stop_guest", uuid, wait=wait)


def move_guest(
    uuid: str,
    *,
    to: Annotated[str | None, Parameter(help="the node; the best one if left out")] = None,
    kind: Annotated[MoveKind, Parameter(help="how it moves")] = "live_migrate",
    wait: Wait = False,
    remote: Remote = LOCAL,
) -> int:
    """Have a guest go to another node of its back end; both nodes hold its resources until it has. Exit code 3: no
    host; with --wait, 4: it has stayed."""
    with remote.client() as client:
        decision = client.call("move_guest", {"uuid": uuid, "target": to, "kind": kind})
        if decision.refusal is not None:
            remote.show(decision) if remote.as_json else print(f"not placed: {decision.refusal.sentence}")
            return REFUSED
        if wait:
            node = decision.selections[0].node
            return _until_settled(remote, client, uuid) or _unless(client, uuid, lambda guest: guest.node == node)
    remote.show(decision) if remote.as_json else print(f"{uuid} moves to {decision.selections[0].node}")
    return 0


def resize_guest(
    uuid: str,
    *,
    to: Annotated[str | None, Parameter(help="the node; its own or the best one if left out")] = None,
    wait: Wait = False,
    ask: Asked = SMALL,
    remote: Remote = LOCAL,
) -> int:
    """Have a guest get other CPUs and memory: --vcpus and --memory-mb, or those of --flavor. It is stopped for it, and
    started again if it ran. Exit code 3: no room; with --wait, 4: it has kept its size."""
    with remote.client() as client:
        guest = client.call("guest", {"uuid": uuid})
        has = {"vcpus": guest.vcpus, "memory_mb": guest.memory_mb, "disk_gb": guest.disk_gb}
        sized = {name: value for name, value in has.items() if getattr(ask, name) is None}
        wanted = replace(ask, project=ask.project or guest.project_id)
        request = (replace(wanted, **sized) if ask.flavor is None else wanted).asked()
        decision = client.call("resize_guest", {"uuid": uuid, "request": request, "target": to})
        if decision.refusal is not None:
            remote.show(decision) if remote.as_json else print(f"not resized: {decision.refusal.sentence}")
            return REFUSED
        if wait:
            return _until_settled(remote, client, uuid) or _unless(client, uuid, lambda each: each.failure is None)
    remote.show(decision) if remote.as_json else print(f"{uuid} is resized on {decision.selections[0].node}")
    return 0


def snapshot_guest(
    uuid: str,
    *,
    name: Annotated[str, Parameter(help="shown to users; need not be unique")] = "",
    snapshot: Annotated[str, Parameter(help="its uuid; made if left out")] = "",
    wait: Wait = False,
    remote: Remote = LOCAL,
) -> int:
    """Have an image made of the disk that a guest has of its own; ``guest create --image snapshot:UUID`` makes guests
    from it. Exit code 4 with --wait: it cannot be made."""
    with remote.client() as client:
        answer = client.call("snapshot_guest", {"uuid": uuid, "name": name, "snapshot": snapshot})
        if wait:
            return _until_made(remote, client, uuid, answer.snapshot)
    remote.show(answer) if remote.as_json else print(f"{answer.snapshot} {answer.status}")
    return 0


def list_snapshots(uuid: str, *, remote: Remote = LOCAL) -> int:
    """The snapshots of a guest."""
    return remote.listed(
        remote.ask("guest_snapshots", {"uuid": uuid}),
        ["uuid", "name", "status", "back end", "key", "reason"],
        lambda each: [each.uuid, each.name, each.status, each.backend, each.key, each.reason],
    )


def delete_snapshot(uuid: str, snapshot: str, *, remote: Remote = LOCAL) -> int:
    """Have SNAPSHOT of a guest removed."""
    with remote.client() as client:
        answer = client.call("delete_guest_snapshot", {"uuid": uuid, "snapshot": snapshot})
    remote.show(answer) if remote.as_json else print(f"{snapshot} {answer.status}")
    return 0


def show_console(uuid: str, *, remote: Remote = LOCAL) -> int:
    """How the console of a guest that runs is reached: the address of its screen, its serial line, or a URL, which may
    hold a secret."""
    found = remote.ask("console", {"uuid": uuid})
    if remote.as_json:
        remote.show(found)
    else:
        print(f"{found.kind} {found.address}")
        if found.note:
            print(found.note)
    return 0


def attach_volume(uuid: str, volume: str, *, wait: Wait = False, remote: Remote = LOCAL) -> int:
    """Attach VOLUME, which a back end has, to a guest. Exit code 4 with --wait: it cannot be attached."""
    code = _do(remote, "attach_volume", uuid, wait=wait, volume=volume)
    if not wait or code:
        return code
    with remote.client() as client:
        return _unless(client, uuid, lambda guest: plain_uuid(volume) in guest.volumes)


def detach_volume(uuid: str, volume: str, *, wait: Wait = False, remote: Remote = LOCAL) -> int:
    """Detach VOLUME from a guest."""
    return _do(remote, "detach_volume", uuid, wait=wait, volume=volume)


def delete_guest(uuid: str, *, wait: Wait = False, remote: Remote = LOCAL) -> int:
    """Have a guest removed; its resources are given back once it is gone."""
    return _do(remote, "delete_guest", uuid, wait=wait)


def list_lives(
    *,
    project: Annotated[str | None, Parameter(help="of this project")] = None,
    backend: Annotated[str | None, Parameter(help="of this back end")] = None,
    status: Annotated[str | None, Parameter(help="in this status")] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 100,
    after: Annotated[str | None, Parameter(help="go on behind this uuid")] = None,
    remote: Remote = LOCAL,
) -> int:
    """Guests that back ends carry out, with their status, as far as you may see them."""
    values = {"project": project, "backend": backend, "status": status, "limit": limit, "after": after}
    head = ["uuid", "name", "project", "status", "back end", "node", "reason"]
    return remote.listed(
        remote.ask("guests", values),
        head,
        lambda guest: [guest.uuid, guest.name, guest.project_id, guest.status, guest.backend, guest.node, guest.reason],
        page=limit,
        by="uuid",
    )


def guest_events(
    uuid: str,
    *,
    after: Annotated[int, Parameter(validator=Number(gte=0), help="from behind this command")] = 0,
    seconds: Annotated[float, Parameter(validator=Number(gt=0), help="end when none came for so long")] = 1.0,
    remote: Remote = LOCAL,
) -> int:
    """What became of a guest, as far as the service keeps events."""
    uuid = plain_uuid(uuid)
    with remote.client() as client, suppress(KeyboardInterrupt):
        client.call("watch", {"kinds": ("decisions", "refusals", "changes"), "after": after})
        for event in client.events(seconds):
            if uuid not in event.hosts and uuid not in event.instances:
                continue
            if remote.as_json:
                remote.show(event)
            else:
                what = event.sentence or (f"placed on {event.hosts[uuid]}" if uuid in event.hosts else "")
                print(f"{event.sequence} {event.command} {what}".rstrip(), flush=True)
    return 0


def _do(remote: Remote, method: str, uuid: str, *, wait: bool, **more: str) -> int:
    with remote.client() as client:
        answer = client.call(method, {"uuid": uuid, **more})
        if wait:
            return _until_settled(remote, client, uuid)
    remote.show(answer) if remote.as_json else print(f"{uuid} {answer.status}")
    return 0


def _until_settled(remote: Remote, client: BlockingClient, uuid: str) -> int:
    """Wait for a guest, and print each status once."""
    shown, end, found = "", time.monotonic() + remote.within, None
    while time.monotonic() < end:
        found = _look(client, uuid)
        status = "deleted" if found is None else found.status
        if status != shown and not remote.as_json:
            where = f" on {found.node}" if found is not None and found.node else ""
            print(f"{uuid} {status}{where}", flush=True)
        shown = status
        if found is None or found.settled:
            break
        time.sleep(LOOK_SECONDS)
    else:
        print(f"{uuid} is still {shown} after {remote.within:g} s")
        return 1
    if remote.as_json:
        remote.show(found)
    elif found is not None and found.status == "error":
        print(f"{uuid}: {found.reason}")
    return FAILED if found is not None and found.status == "error" else 0


def _until_made(remote: Remote, client: BlockingClient, uuid: str, snapshot: str) -> int:
    """Wait for a snapshot of a guest, and print what has become of it."""
    end, found = time.monotonic() + remote.within, None
    while time.monotonic() < end:
        lines = client.call("guest_snapshots", {"uuid": uuid})
        found = next((each for each in lines if each.uuid == snapshot), None)
        if found is None or found.status in ("available", "error"):
            break
        time.sleep(LOOK_SECONDS)
    else:
        print(f"{snapshot} is still {'placed' if found is None else found.status} after {remote.within:g} s")
        return 1
    if remote.as_json:
        remote.show(found)
    else:
        print(f"{snapshot} " + ("deleted" if found is None else f"{found.status} {found.reason or found.key}"))
    return 0 if found is not None and found.status == "available" else FAILED


def _unless(client: BlockingClient, uuid: str, right: Callable[[Any], bool]) -> int:
    """The exit code of a command that has a guest changed: if it is not right, the reason is printed."""
    found = _look(client, uuid)
    if found is not None and right(found):
        return 0
    print(f"{uuid}: {'it is gone' if found is None else found.reason}")
    return FAILED


def _look(client: BlockingClient, uuid: str) -> Any:
    from ...placement.types.errors import UnknownName

    try:
        return client.call("guest", {"uuid": uuid})
    except (UnknownName, NotAllowed):
        return None  # it is gone
