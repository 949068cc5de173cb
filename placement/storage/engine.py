"""The storage engine: places volumes on the pools of one fleet under one policy, and says why. The same pools and
commands give the same decisions."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np

from ..decide.fits import Fit
from ..fleet.fleet import Fleet
from ..types.errors import InvalidValue
from ..types.validation import shown, whole_number
from . import batch as volume_batch
from . import changes as volume_changes
from . import fits as volume_fits
from . import groups as volume_groups
from . import moves as volume_moves
from . import placement as volume_placement
from .batch import VolumeDecisions
from .context import VolumeContext
from .decision import VolumeDecision, VolumeGroupDecision
from .explain import VolumeExplanation, explain
from .pools.filter_properties import InstanceHost
from .pools.policy import VolumePolicy
from .pools.pools import Pools
from .pools.request import VolumeGroupRequest, VolumeRequest
from .pools_handle import PoolsHandle
from .scan import PoolRanking


class VolumeEngine:
    """Places volumes. Not thread-safe; deterministic given the fleet, the policy, ``seed`` and the calls.

    Pools come by ``engine.pools.report`` and ``load``. ``instance_host`` says on which compute host an instance is, for
    the hint ``local_to_instance``; left out, the guests of the same fleet are looked at. An error raises HostlerError
    and changes nothing; a refusal is a decision too.
    """

    def __init__(
        self,
        fleet: Fleet | None = None,
        policy: VolumePolicy | None = None,
        *,
        seed: int | None = None,
        instance_host: InstanceHost | None = None,
    ) -> None:
        _check_kind(fleet, Fleet, "fleet")
        _check_kind(policy, VolumePolicy, "policy")
        policy = policy if policy is not None else VolumePolicy.cinder_default()
        fleet = fleet if fleet is not None else Fleet()
        seed = whole_number(policy.options.seed if seed is None else seed, "seed", most=2**63 - 1)
        self._context = VolumeContext(fleet, policy, seed, instance_host=instance_host)

    def __repr__(self) -> str:
        return f"<VolumeEngine on {self.fleet!r}, seed {self.seed}, {self.sequence} decisions>"

    # state

    @property
    def policy(self) -> VolumePolicy:
        """The policy that this engine decides under."""
        return self._context.policy

    @property
    def seed(self) -> int:
        """Seed of every random choice."""
        return self._context.seed

    @property
    def fleet(self) -> Fleet:
        """The fleet as this engine sees it."""
        return self._context.fleet

    @property
    def sequence(self) -> int:
        """Number of the latest decision about volumes. Engines on one fleet that are no forks count together, and a
        fleet that was saved and loaded goes on counting."""
        return self._context.sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self._context.sequence = number

    @property
    def pools(self) -> Pools:
        """A handle on the pools as this engine sees them. It may be kept: what is done through it is done to this
        engine's version, whichever fork was used last."""
        return PoolsHandle(self._context)

    # deciding

    def place(self, request: VolumeRequest) -> VolumeDecision:
        """Choose a pool for a new volume by Cinder 29's rules and charge it.

        With ``retry`` the pool tried last gets back what it was charged, and none that was tried is tried again where
        the policy has IgnoreAttemptedHostsFilter. InvalidValue, or DuplicateName for a volume that exists. O(pools).
        """
        return volume_placement.place(self._context, request)

    def place_many(self, requests: Iterable[VolumeRequest]) -> VolumeDecisions:
        """Place each request, one after the other, each seeing those before it; a refusal does not stop the rest.

        The answers are those of ``place``, without score parts and hints of refusals. Bad input raises before anything
        is placed. O(changes since the last like decision + log pools) each, where the policy leaves nothing to chance
        and no hint or earlier attempt speaks of single pools; else O(pools).
        """
        return volume_batch.place_many(self._context, requests)

    def rank(self, request: VolumeRequest, *, backends: Iterable[str] | None = None) -> PoolRanking:
        """All pools that pass, best first with weights, and the stage that removed each other. ``backends``: ids of the
        pools that are judged, and weighed among each other; UnknownName for one that there is not.
        O(pools log pools)."""
        pools = self._context.pools
        only = None if backends is None else np.array(sorted({pools.row(name) for name in backends}), np.int32)
        return self._context.rank(request, only=only)

    def explain(self, request: VolumeRequest, *, top: int = 5) -> VolumeExplanation:
        """Per pool the first refusing stage and why, score parts of the best ``top``, and what would change the
        answer. Charges nothing. O(pools)."""
        whole_number(top, "top")
        ranking = self.rank(request)
        context = self._context
        return explain(context.pools, context.policy, context.filter_properties(request), ranking, top)

    def fits(self, request: VolumeRequest, *, limit: int | None = None) -> Fit:
        """How many more volumes of this kind fit, and in which pools. Charges nothing. InvalidValue without ``limit``
        if the number is unbounded. O(pools), or O(volumes) if other filters read capacities too."""
        if limit is not None:
            whole_number(limit, "limit")
        return volume_fits.fits(self._context, self._context.checked(request), limit)

    # changing: see volume_changes.py

    def passes(self, request: VolumeRequest, backend: str) -> VolumeDecision:
        """May the volume be on this pool, or on some pool of this ``host@backend``? Cinder's check before a migration
        or a snapshot: all filters, nothing charged. O(pools)."""
        return volume_changes.passes(self._context, request, backend)

    def extend(self, request: VolumeRequest, new_size_gb: int, backend: str | None = None) -> VolumeDecision:
        """Let a volume of ``request.spec.size_gb`` grow where it is: on ``backend``, or where the volume of
        ``request.volume_id`` is known to be. Its pool is charged the difference. O(pools)."""
        return volume_changes.extend(self._context, request, new_size_gb, backend)

    def retype(
        self, request: VolumeRequest, backend: str | None = None, *, migration_policy: str = "never"
    ) -> VolumeDecision:
        """Give a volume the type of ``request.spec``: where it is (``backend``, or as known) if that passes, for
        nothing; elsewhere only by the migration policy ``on-demand``: that pool is charged, and the old one keeps its
        charge until ``migrated``. O(pools)."""
        return volume_changes.retype(self._context, request, backend, migration_policy)

    def manage(self, request: VolumeRequest, backend: str) -> VolumeDecision:
        """Take over a volume that is on ``backend`` already, if all filters pass for a volume of no size: nothing is
        charged, but it is known from now on. O(pools)."""
        return volume_changes.manage(self._context, request, backend)

    def migrate(self, request: VolumeRequest, target: str | None = None) -> VolumeDecision:
        """Let the known volume of ``request.volume_id`` go to another pool: the best one, or ``target`` (a pool, or
        the best of a backend), which is charged; the old one keeps its charge until ``migrated`` or ``reverted``.
        InvalidValue if it is there already, or a move of it has not ended. O(pools)."""
        return volume_moves.migrate(self._context, request, target)

    def migrated(self, volume_id: str) -> None:
        """A volume has left its old pool, which gets back what it was charged. UnknownName. O(1)."""
        volume_changes.migrated(self._context, volume_id)

    def reverted(self, volume_id: str) -> None:
        """A volume is where it was before ``retype`` or ``migrate``: the new pool gets back what it was charged.
        UnknownName, or InvalidValue for one that is not moving. O(1)."""
        volume_moves.revert(self._context, volume_id)

    def snapshot(self, request: VolumeRequest, backend: str | None = None) -> VolumeDecision:
        """Make room for a snapshot of a volume of ``request.spec.size_gb`` where it is (``backend``, or as known): all
        filters must pass for its size, whatever its type, and the pool is charged the size. ``give_back`` returns it.
        O(pools)."""
        return volume_moves.snapshot(self._context, request, backend)

    def give_back(self, backend_id: str, size_gb: int) -> None:
        """Return what a snapshot took of a pool. No-op for a pool that is not known any more. O(1)."""
        volume_moves.give_back(self._context, backend_id, whole_number(size_gb, "size_gb"))

    def release(self, volume_ids: str | Iterable[str]) -> int:
        """Remove deleted volumes and return their capacity to the pools; returns their number. UnknownName, and nothing
        changed, if one is unknown. O(volumes)."""
        return volume_changes.release(self._context, volume_ids, give_back=True)

    def forget(self, volume_ids: str | Iterable[str]) -> int:
        """As ``release``, but the capacity of the pools changes only with the next report. O(volumes)."""
        return volume_changes.release(self._context, volume_ids, give_back=False)

    def place_group(self, request: VolumeGroupRequest, *, most_tried: int | None = None) -> VolumeGroupDecision:
        """Place the volumes of a group on one backend, all or none: the best by Cinder's order whose pools can hold
        them together. ``most_tried``: volumes that may be placed to find it, with which no further backend is tried;
        None: any number. InvalidValue or DuplicateName. O(backends tried * volumes * pools)."""
        return volume_groups.place_group(self._context, request, most_tried)

    def place_group_in_steps(
        self, request: VolumeGroupRequest, *, most_tried: int | None = None
    ) -> Generator[None, None, VolumeGroupDecision]:
        """``place_group`` in steps of about a millisecond. At each pause the fleet is as before; others may read it
        then, and change forks of it."""
        fleet, aside = self.fleet, self._context.aside()
        try:
            decision = yield from volume_groups.place_group_in_steps(aside, request, most_tried)
        except BaseException:
            Fleet._drop(fleet, aside._fleet)
            raise
        Fleet._replace(fleet, aside._fleet)
        return decision

    # forks

    def fork(self, policy: VolumePolicy | None = None) -> VolumeEngine:
        """An engine on the same pools as they are now, under the same policy or another; what either does the other
        never sees. O(1)."""
        _check_kind(policy, VolumePolicy, "policy")
        other = VolumeEngine.__new__(VolumeEngine)
        other._context = self._context.fork(policy)
        return other

    def what_if(self, policy: VolumePolicy | None = None) -> VolumeEngine:
        """A fork to try things on and throw away: ``engine.what_if().place(request)``."""
        return self.fork(policy)


def _check_kind(value: object, kind: type[Any], field: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidValue(f"{field} must be a {kind.__name__}, got {shown(value)}", field=field)
