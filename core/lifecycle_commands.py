"""Commands on the life cycle of guests that back ends carry out: those of users, which change what is desired, and
those of the reconciler, which say what happened. A *claim* is the number of one attempt to have a guest on one node; it
is never reused."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from .backends.errors import FailureClass
from .backends.values import NodeState
from .engine_commands import Asked, Command

_NAME: Final = r"^[A-Za-z0-9._-]{1,64}$"
Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
NAME_PATTERNS: Final = {_NAME: "a name has 1 to 64 letters, digits and ._-"}
"""What the pattern means, for errors."""
Claim = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(max_length=255)]
BUILD_SECONDS: Final = 600.0
ATTEMPTS: Final = 3
"""Nova 33: [scheduler] max_attempts."""


class Lifecycle(Command, frozen=True):
    """Base of all commands of this module."""


class OnGuest(Lifecycle, frozen=True):
    """Base of commands on one guest that is there."""

    uuid: str


class OnClaim(OnGuest, frozen=True):
    """Base of what the reconciler tells of one claim of a guest; refused if it is not the present one."""

    claim: Claim


class CreateGuest(Lifecycle, frozen=True, tag="create_guest"):
    """Place one guest, and have its back end build it. ``image`` and ``networks`` are names that the back end knows;
    ``user_data`` is the name of a file in the service's folder of user data. ``stopped``: build it without starting it.
    At most ``attempts`` hosts are tried, each for ``build_seconds``. Answers the decision; the guest's events tell what
    becomes of it."""

    request: Asked
    name: Text = ""
    image: Text = ""
    networks: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    user_data: Name | None = None
    stopped: bool = False
    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = ATTEMPTS
    build_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = BUILD_SECONDS


class StartGuest(OnGuest, frozen=True, tag="start_guest"):
    """Have a guest run. One in error is built again, on another host where that one was given back."""


class StopGuest(OnGuest, frozen=True, tag="stop_guest"):
    """Have a guest stopped; it keeps its resources."""


class DeleteGuest(OnGuest, frozen=True, tag="delete_guest"):
    """Have a guest removed from its back end; its resources are given back once it is gone."""


class SetBackend(Lifecycle, frozen=True, tag="set_backend"):
    """Enable a back end, or disable it: then no calls are made on it, and nothing is placed on its nodes; its guests
    stay. ``reason``: for operators."""

    name: Name
    enabled: bool
    reason: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class SetInstallation(Lifecycle, frozen=True, tag="set_installation"):
    """Name this installation, once, before anything is built: back ends that several share tell them apart by it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{1,64}$")]


class NodeReport(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A node of a back end: totals, and what is used, by guests of others too. ``guests``: uuids of the guests of this
    installation that the use includes."""

    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    used_vcpus: int = 0
    used_memory_mb: int = 0
    used_disk_gb: int = 0
    running: int = 0
    state: NodeState = "up"
    hypervisor: str = "QEMU"
    guests: tuple[str, ...] = ()


class ReportBackend(Lifecycle, frozen=True, tag="report_backend"):
    """All nodes of a back end, as they were ``at`` a time. A node that was there before and is left out is down."""

    name: Name
    at: float
    nodes: tuple[NodeReport, ...]


class BeginBuild(OnClaim, frozen=True, tag="begin_build"):
    """The reconciler is about to make a guest on its back end."""


class ConfirmGuest(OnClaim, frozen=True, tag="confirm_guest"):
    """The back end has the guest, running or stopped, under its own id ``key``. ``outside``: it was started or stopped
    by something else than the reconciler."""

    power: Literal["on", "off"]
    key: str = ""
    outside: bool = False


class FailBuild(OnClaim, frozen=True, tag="fail_build"):
    """The guest cannot be built where it was claimed. What is left of it there is removed next; then it is placed on
    another host if ``elsewhere`` and attempts are left, else it is in error."""

    failure: FailureClass
    text: str = ""
    elsewhere: bool = False


class LoseGuest(OnClaim, frozen=True, tag="lose_guest"):
    """The back end no longer has a guest that it had, although its removal was not wanted."""


class ClearClaim(OnClaim, frozen=True, tag="clear_claim"):
    """The back end has nothing of the guest: after a failed build, or because its removal was wanted."""


GuestCommand = StartGuest | StopGuest | DeleteGuest
ProgressCommand = BeginBuild | ConfirmGuest | FailBuild | LoseGuest | ClearClaim
BackendCommand = SetBackend | SetInstallation | ReportBackend
LifecycleCommand = CreateGuest | GuestCommand | ProgressCommand | BackendCommand
