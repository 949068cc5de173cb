"""The hook by which kube-scheduler has a pod bound to the node that it chose: the hold of the pod is brought to that
node and confirmed, then the Kubernetes API is told.

No pod may be bound and not charged. So the hold is confirmed first, which checks the rights of the caller and ends its
expiry, and the pod is released only where it is known that it is not bound there.
"""

from __future__ import annotations

import msgspec

from ....placement.types.errors import HostlerError
from .asking import Asking
from .calling import Call
from .config import HooksConfig
from .kubernetes_api import Binding, Conflicts, NotBound, UnknownBinding, bound_node, check_names, post_binding


class Bound(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of ``bind``; an empty ``error``: the pod is bound."""

    error: str = ""


async def bind(call: Call) -> Bound:
    """Bind a pod that ``prioritize`` has held. What prevents it is in the answer's ``Error``, on which kube-scheduler
    tries the pod again; the pod is charged then only where it may be bound all the same. HttpError 400 for a malformed
    request."""
    given: Binding = call.read(Binding)
    if not call.config.kubernetes_api:
        return Bound("this service binds no pods: set kubernetes_api in [hooks], or leave bindVerb out")
    try:
        check_names(given)
        if not await _charged(call, given):
            return Bound()
        await _bound(call, given)
    except HostlerError as error:
        return Bound(str(error))
    return Bound()


async def _charged(call: Call, given: Binding) -> bool:
    """Have the pod on its node, without an expiry. False if it is bound there already. HostlerError, with no call made
    that changes anything on the Kubernetes API, if it cannot be there or the caller may not change it."""
    asking, config = call.asking, call.config
    there = asking.node_of(given.uid)
    if there is None:
        problem = f"pod {given.uid[:64]} is not held: its hold has expired, or it was not asked about before"
        raise NotBound(problem)
    asking.check_may_change(given.uid)
    if not asking.is_held(given.uid):  # an earlier binding of it has an outcome that is not known
        node = await bound_node(config, given)
        if node is None:
            raise NotBound(f"pod {given.uid[:64]} is not held, and Kubernetes has no pod of that uid")
        if node:
            return not await _is_on(asking, config, given, node)
        await _hold_again(asking, config, given.uid, given.node)
    elif there != given.node:
        await _hold_again(asking, config, given.uid, given.node)
    await asking.confirm((given.uid,))
    return True


async def _hold_again(asking: Asking, config: HooksConfig, uid: str, node: str) -> None:
    """Hold a pod on a node instead of where it is. NotBound, with nothing held, if it does not fit there."""
    spec = asking.spec_of(uid)
    await asking.release(uid)
    there = {**spec, "requested_destination": {"node": node}}
    decision = await asking.hold(uid, there, config.hold_seconds)
    if decision.refusal is not None:
        raise NotBound(decision.refusal.sentence)


async def _bound(call: Call, given: Binding) -> None:
    """Have the Kubernetes API bind a pod that is charged. HostlerError if it did not, or that is not known."""
    asking, config = call.asking, call.config
    try:
        await post_binding(config, given)
    except (UnknownBinding, Conflicts) as error:
        try:
            node = await bound_node(config, given)
        except UnknownBinding:
            raise error from None  # it stays charged
        if node and await _is_on(asking, config, given, node):
            return
        if node is None or isinstance(error, Conflicts):
            await asking.release(given.uid)
        else:  # what was sent may still be carried out: it is charged for a while
            await _hold_again(asking, config, given.uid, given.node)
        raise
    except NotBound:
        await asking.release(given.uid)
        raise


async def _is_on(asking: Asking, config: HooksConfig, given: Binding, node: str) -> bool:
    """Charge a pod where it is bound. True if that is the node of its binding, NotBound if it is another."""
    if asking.node_of(given.uid) != node:
        await _hold_again(asking, config, given.uid, node)
    if asking.is_held(given.uid):
        await asking.confirm((given.uid,))
    if node != given.node:
        raise NotBound(f"pod {given.uid[:64]} is bound to {node[:100]}")
    return True
