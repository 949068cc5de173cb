"""The hook by which kube-scheduler has a pod bound to the node that it chose: the hold of the pod is brought to that
node, the Kubernetes API is told, and the hold is confirmed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import msgspec
import trio

from ....placement.types.errors import HostlerError
from .calling import Call
from .config import HooksConfig

SECONDS: Final = 10.0
"""For the Kubernetes API to answer."""


class Binding(msgspec.Struct, frozen=True):
    """The request of ``bind``."""

    name: str = msgspec.field(name="PodName")
    namespace: str = msgspec.field(name="PodNamespace")
    uid: str = msgspec.field(name="PodUID")
    node: str = msgspec.field(name="Node")


class Bound(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of ``bind``; an empty ``error``: the pod is bound."""

    error: str = ""


class NotBound(HostlerError):
    """The Kubernetes API did not bind a pod."""

    code = "not_bound"


async def bind(call: Call) -> Bound:
    """Bind a pod that ``prioritize`` has held. What prevents it is in the answer's ``Error``, and nothing is held then;
    kube-scheduler tries the pod again. HttpError 400 for a malformed request."""
    given: Binding = call.read(Binding)
    if not call.config.kubernetes_api:
        return Bound("this service binds no pods: set kubernetes_api in [hooks], or leave bindVerb out")
    asking = call.asking
    try:
        if not asking.is_held(given.uid):
            return Bound(f"pod {given.uid[:64]} is not held: its hold has expired, or it was not asked about before")
        if asking.node_of(given.uid) != given.node:
            spec = asking.spec_of(given.uid)
            await asking.release(given.uid)
            there = {**spec, "requested_destination": {"node": given.node}}
            decision = await asking.hold(given.uid, there, call.config.hold_seconds)
            if decision.refusal is not None:
                return Bound(decision.refusal.sentence)
        try:
            await _post(call.config, given)
        except HostlerError as error:
            await asking.release(given.uid)
            return Bound(str(error))
        await asking.confirm((given.uid,))
    except HostlerError as error:
        return Bound(str(error))
    return Bound()


async def _post(config: HooksConfig, given: Binding) -> None:
    """Have the Kubernetes API bind the pod. NotBound."""
    import httpx  # takes its time to import

    headers = {}
    if config.kubernetes_token_file:
        try:
            token = await trio.Path(config.kubernetes_token_file).read_text()  # read each time: tokens are renewed
        except OSError as error:
            raise NotBound(f"the token of the Kubernetes API cannot be read: {error}") from None
        headers["authorization"] = f"Bearer {token.strip()}"
    names = (given.namespace, given.name, given.node)
    if not all(part and "/" not in part and ".." not in part for part in names):
        raise NotBound("a name of the binding is malformed")
    url = f"{config.kubernetes_api.rstrip('/')}/api/v1/namespaces/{given.namespace}/pods/{given.name}/binding"
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": given.name, "namespace": given.namespace, "uid": given.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": given.node},
    }
    try:
        verify = await trio.to_thread.run_sync(_trust, config.kubernetes_ca_file)
        async with httpx.AsyncClient(timeout=SECONDS, verify=verify) as client:
            answer = await client.post(url, json=body, headers=headers)
    except (httpx.HTTPError, OSError) as error:
        raise NotBound(f"the Kubernetes API cannot be reached: {error}") from None
    if answer.status_code not in (200, 201, 202):
        raise NotBound(f"the Kubernetes API answered {answer.status_code}: {answer.text[:300]}")


def _trust(ca_file: str) -> ssl.SSLContext:
    """Certificates that the Kubernetes API is known by. OSError."""
    return ssl.create_default_context(cafile=str(Path(ca_file)) if ca_file else None)
