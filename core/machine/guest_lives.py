"""Commands on the life cycle of guests, carried out on the service's state. Every change is decided here, by the
commands alone; drivers and clocks are the reconciler's."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...placement.load.reports import report_hosts as load_reports
from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, HostlerError, InUse, InvalidValue, UnknownName
from ...placement.types.host import Host, Service
from ...placement.types.host_report import HostReport
from ..backends.errors import FailureClass
from ..engine_commands import Asked
from ..lifecycle_commands import (
    BeginBuild,
    ClearClaim,
    ConfirmGuest,
    CreateGuest,
    DeleteGuest,
    FailBuild,
    LoseGuest,
    NodeReport,
    ReportBackend,
    SetBackend,
    SetInstallation,
    StartGuest,
    StopGuest,
)
from . import guests
from .lives import BackendLife, Fault, GuestChange, GuestLife, change_of
from .state import ServiceState

NEVER_EXPIRES: Final = 1e12
"""Seconds: claims of guests that back ends carry out end by their life cycle, not by a report that leaves them out."""
MAX_TEXT: Final = 1_000


def change_lives(state: ServiceState, command: Any, now: float) -> Any:
    """Carry out a command. HostlerError, with nothing changed, if it is refused."""
    match command:
        case CreateGuest():
            return _create(state, command, now)
        case StartGuest(uuid=uuid):
            return _start(state, state.lives.guest(uuid), now)
        case StopGuest(uuid=uuid):
            return _desire_stopped(state, state.lives.guest(uuid), now)
        case DeleteGuest(uuid=uuid):
            return _delete(state, state.lives.guest(uuid), now)
        case SetInstallation(id=name):
            return _set_installation(state, name)
        case SetBackend(name=name, enabled=enabled, reason=reason):
            return _set_backend(state, name, enabled=enabled, reason=reason)
        case ReportBackend():
            return _report(state, command, now)
    return _progress(state, command, now)


def check_not_carried_out(state: ServiceState, uuids: Any) -> None:
    """InUse if a back end carries out one of the guests: what it holds follows its life cycle. O(uuids)."""
    lives = state.lives.guests
    for uuid in uuids if lives else ():
        if uuid in lives:
            hint = "use start_guest, stop_guest and delete_guest"
            raise InUse(f"back end {lives[uuid].backend or 'none'} carries out guest {uuid}", field="uuid", hint=hint)


# users


def _create(state: ServiceState, command: CreateGuest, now: float) -> Decision:
    asked, lives = command.request, state.lives
    if len(asked.instance_uuids) > 1:
        raise InvalidValue("one guest is made at a time", field="request.instance_uuids")
    if asked.server_group is not None and not isinstance(asked.server_group, str):
        raise InvalidValue("the server group is one that the service keeps", field="request.server_group")
    for uuid in asked.instance_uuids:
        if uuid in lives.guests:
            raise DuplicateName(f"there is a guest {uuid}", field="request.instance_uuids")
    if not any(backend.enabled and backend.nodes for backend in lives.backends.values()):
        hint = "configure one in [backends], and see hostler backend list"
        raise InvalidValue("no back end that is enabled has nodes", field="request", hint=hint)
    flavor = state.spec_of(asked).flavor
    spec = bytes(state.kept_spec(asked))
    decision = _placed(state, asked, now)
    if not decision.placed:
        return decision
    (selection,) = decision.selections
    backend = lives.backend_of(selection.node)
    if backend is None:
        guests.release(state, (selection.instance_uuid,))
        raise InvalidValue(f"node {selection.node}, which was selected, belongs to no back end", field="request")
    life = GuestLife(
        uuid=selection.instance_uuid,
        project_id=asked.project_id,
        user_id=asked.user_id,
        name=command.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        disk_gb=flavor.root_gb + flavor.ephemeral_gb,
        image=command.image,
        networks=command.networks,
        user_data=command.user_data,
        spec=spec,
        server_group=asked.server_group,
        attempts=command.attempts,
        build_seconds=command.build_seconds,
        desired="stopped" if command.stopped else "active",
    )
    lives.guests[life.uuid] = life
    _claim(state, life, decision, now)
    return decision


def _placed(state: ServiceState, asked: Asked, now: float) -> Decision:
    (outcome,) = guests.place_each(state, (asked,), now)
    if isinstance(outcome, HostlerError):
        raise outcome
    assert outcome is not None
    return outcome


def _claim(state: ServiceState, life: GuestLife, decision: Decision, now: float) -> None:
    (selection,) = decision.selections
    life.claim = state.lives.next_claim()
    life.host, life.node = selection.host, selection.node
    life.backend = state.lives.backend_of(selection.node) or ""
    life.until, life.key, life.elsewhere = now + life.build_seconds, "", False
    _set_status(life, "placed", now)


def _set_status(life: GuestLife, status: Any, now: float) -> None:
    life.status, life.changed = status, now


def _start(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    _check_not_deleted(life)
    if life.status == "error":
        life.failed_hosts = []
        if life.node:  # nothing is known to be left there, or it is what is to be built again
            life.claim, life.until = state.lives.next_claim(), now + life.build_seconds
            _set_status(life, "placed", now)
        else:
            decision = _place_again(state, life, now)
            if not decision.placed:
                assert decision.refusal is not None
                raise InvalidValue(decision.refusal.sentence, field="uuid", hint=decision.refusal.hint)
    life.desired = "active"
    return change_of(life)


def _desire_stopped(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    _check_not_deleted(life)
    life.desired = "stopped"
    return change_of(life)


def _check_not_deleted(life: GuestLife) -> None:
    if life.desired == "deleted":
        raise InvalidValue(f"guest {life.uuid} is being deleted", field="uuid")


def _delete(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    life.desired, life.changed = "deleted", now
    if life.status == "placed" or not life.node:  # no call was made
        return _forget(state, life)
    return change_of(life)


def _forget(state: ServiceState, life: GuestLife) -> GuestChange:
    _release(state, life)
    del state.lives.guests[life.uuid]
    return msgspec.structs.replace(change_of(life), status="deleted")


def _release(state: ServiceState, life: GuestLife) -> None:
    """Give back what a guest holds; it may have lost it through another interface."""
    try:
        state.fleet.consumer_id(life.uuid)
    except UnknownName:
        return
    guests.release(state, (life.uuid,))


def _place_again(state: ServiceState, life: GuestLife, now: float) -> Decision:
    """Place a guest that holds nothing, not on hosts where it failed. What it is judged by later stays as it was."""
    spec = msgspec.msgpack.decode(life.spec)
    spec["ignore_hosts"] = [*spec.get("ignore_hosts", ()), *life.failed_hosts]
    raw = msgspec.Raw(msgspec.msgpack.encode(spec))
    asked = Asked(
        spec=raw,
        instance_uuids=(life.uuid,),
        project_id=life.project_id,
        user_id=life.user_id,
        server_group=life.server_group,
    )
    decision = _placed(state, asked, now)
    if not decision.placed:
        return decision
    state.requests.keep((life.uuid,), life.spec)
    if state.lives.backend_of(decision.selections[0].node) is None:
        guests.release(state, (life.uuid,))
        raise InvalidValue(f"node {decision.selections[0].node} belongs to no back end", field="uuid")
    _claim(state, life, decision, now)
    return decision


# the reconciler


def _progress(state: ServiceState, command: Any, now: float) -> GuestChange:
    life = state.lives.guest(command.uuid)
    if life.claim != command.claim:
        raise InvalidValue(f"claim {command.claim} of guest {life.uuid} is not the present one", field="claim")
    match command:
        case BeginBuild():
            if life.status != "placed" or life.desired == "deleted":
                raise _wrong_status(life, "begun")
            _set_status(life, "building", now)
        case ConfirmGuest():
            return _confirm(state, life, command, now)
        case FailBuild():
            if life.status not in ("placed", "building"):
                raise _wrong_status(life, "failed")
            _fail(state, life, command, now)
        case LoseGuest():
            if life.status not in ("active", "stopped") or life.desired == "deleted":
                raise _wrong_status(life, "lost")
            text = "the back end no longer has the guest, and its removal was not asked for"
            life.fault = Fault("not_found", text, now, life.node)
            _set_status(life, "error", now)
        case ClearClaim():
            return _clear(state, life, now)
    return change_of(life)


def _wrong_status(life: GuestLife, what: str) -> InvalidValue:
    return InvalidValue(f"guest {life.uuid} is {life.shown}: it cannot be {what}", field="uuid")


def _confirm(state: ServiceState, life: GuestLife, command: ConfirmGuest, now: float) -> GuestChange:
    if life.status not in ("building", "active", "stopped"):
        raise _wrong_status(life, "confirmed")
    if life.status == "building":
        life.fault, life.failed_hosts = None, []
        state.lives.failed_builds.pop(life.node, None)
        _show_failed_builds(state, life.node)
        _spawned(state, life.uuid)
    elif command.outside and command.power == "off" and life.desired == "active":
        life.desired = "stopped"  # shut down from within or outside: as in Nova 33, it stays so
    life.key = command.key or life.key
    _set_status(life, "active" if command.power == "on" else "stopped", now)
    return change_of(life)


def _spawned(state: ServiceState, uuid: str) -> None:
    try:
        state.engine.spawned((uuid,))
    except UnknownName:
        return  # it has lost its allocation through another interface


def _fail(state: ServiceState, life: GuestLife, command: FailBuild, now: float) -> None:
    life.fault = Fault(command.failure, command.text[:MAX_TEXT], now, life.node)
    if life.host not in life.failed_hosts:
        life.failed_hosts.append(life.host)
    life.elsewhere = command.elsewhere
    failed = state.lives.failed_builds
    failed[life.node] = failed.get(life.node, 0) + 1
    _show_failed_builds(state, life.node)
    _set_status(life, "clearing", now)


def _show_failed_builds(state: ServiceState, node: str) -> None:
    if state.fleet._names.find(node) >= 0:
        state.fleet.report(node, failed_builds=state.lives.failed_builds.get(node, 0))


def _clear(state: ServiceState, life: GuestLife, now: float) -> GuestChange:
    if life.desired == "deleted":
        return _forget(state, life)
    if life.status != "clearing":
        raise _wrong_status(life, "cleared")
    _release(state, life)
    life.backend = life.host = life.node = life.key = ""
    if not life.elsewhere or len(life.failed_hosts) >= life.attempts:
        _set_status(life, "error", now)
        return change_of(life)
    try:
        decision = _place_again(state, life, now)
    except HostlerError as error:
        _give_up(life, "permanent", str(error), now)
    else:
        if decision.refusal is not None:
            _give_up(life, "capacity", decision.refusal.sentence, now)
    return change_of(life)


def _give_up(life: GuestLife, failure: FailureClass, text: str, now: float) -> None:
    before = "" if life.fault is None else f"; before, {life.fault.node}: {life.fault.text}"
    life.fault = Fault(failure, f"{text}{before}"[:MAX_TEXT], now, "")
    _set_status(life, "error", now)


# back ends


def _set_installation(state: ServiceState, name: str) -> None:
    lives = state.lives
    if lives.installation not in ("", name):
        raise DuplicateName(f"this installation is {lives.installation}", field="id")
    lives.installation = name


def _set_backend(state: ServiceState, name: str, *, enabled: bool, reason: str) -> None:
    backend = state.lives.backends.setdefault(name, BackendLife())
    backend.enabled, backend.reason = enabled, reason
    for node in backend.nodes:
        if state.fleet._names.find(node) >= 0:
            state.fleet.set_service(node, disabled=not enabled, disabled_reason=reason if not enabled else None)


def _report(state: ServiceState, command: ReportBackend, now: float) -> int:
    """Take in the nodes of a back end; returns how many changed."""
    lives = state.lives
    for node in command.nodes:
        if lives.backend_of(node.name) not in (None, command.name):
            raise DuplicateName(f"node {node.name} belongs to back end {lives.backend_of(node.name)}", field="nodes")
    known = lives.backends.get(command.name) or BackendLife()
    if command.at < known.reported:
        return 0
    reports = [state.with_pools(_host_report(state, known, node, command.at)) for node in command.nodes]
    reported = load_reports(state.fleet, reports, claim_timeout=NEVER_EXPIRES)
    names = {node.name: None for node in command.nodes}
    for name in known.nodes:
        if name not in names and state.fleet._names.find(name) >= 0:
            state.fleet.set_service(name, forced_down=True)
    lives.set_nodes(command.name, list({**dict.fromkeys(known.nodes), **names}))
    lives.backends[command.name].reported = command.at
    return reported.applied


def _host_report(state: ServiceState, backend: BackendLife, node: NodeReport, at: float) -> HostReport:
    disabled = not backend.enabled or node.state == "maintenance"
    reason = backend.reason if not backend.enabled else "maintenance"
    host = Host(
        host=node.name,
        vcpus_total=node.vcpus,
        vcpus_used=node.used_vcpus,
        total_usable_ram_mb=node.memory_mb,
        free_ram_mb=node.memory_mb - node.used_memory_mb,
        total_usable_disk_gb=node.disk_gb,
        free_disk_mb=(node.disk_gb - node.used_disk_gb) * 1024,
        hypervisor_type=node.hypervisor,
        num_instances=node.running,
        failed_builds=state.lives.failed_builds.get(node.name, 0),
    )
    service = Service(disabled=disabled, disabled_reason=reason if disabled else None, forced_down=node.state == "down")
    return HostReport(host=host, at=at, includes=frozenset(node.guests), service=service)
