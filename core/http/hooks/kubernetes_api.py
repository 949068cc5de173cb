"""The two calls on the Kubernetes API that a binding takes. Their errors tell what is known of the binding."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import msgspec
import trio

from ....placement.types.errors import HostlerError
from .config import HooksConfig
from .pods import Meta

SECONDS: Final = 10.0
"""For the Kubernetes API to answer."""
_DONE: Final = frozenset({200, 201, 202})
_TIMEOUT: Final = 408
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404
_SERVER_ERROR: Final = 500


class Binding(msgspec.Struct, frozen=True):
    """The request of ``bind``."""

    name: str = msgspec.field(name="PodName")
    namespace: str = msgspec.field(name="PodNamespace")
    uid: str = msgspec.field(name="PodUID")
    node: str = msgspec.field(name="Node")


class NotBound(HostlerError):
    """The Kubernetes API did not bind a pod, and will not."""

    code = "not_bound"


class Conflicts(NotBound):
    """The same, since the pod is in another state: it may be bound already, by an earlier attempt too."""


class UnknownBinding(HostlerError):
    """It is not known whether the Kubernetes API has bound a pod."""

    code = "unknown_binding"


class _Spec(msgspec.Struct, frozen=True):
    node: str = msgspec.field(default="", name="nodeName")


class _Pod(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: _Spec = _Spec()


def check_names(given: Binding) -> None:
    """NotBound if a name cannot be part of a path."""
    names = (given.namespace, given.name, given.node)
    if not all(part and not set(part) & set("/?#%\\ ") and ".." not in part for part in names):
        raise NotBound("a name of the binding is malformed")


async def post_binding(config: HooksConfig, given: Binding) -> None:
    """Have a pod bound. NotBound or Conflicts, or UnknownBinding where the request may have been carried out."""
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": given.name, "namespace": given.namespace, "uid": given.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": given.node},
    }
    status, text = await _call(config, "POST", f"{_path(given)}/binding", msgspec.json.encode(body))
    if status in _DONE:
        return
    problem = f"the Kubernetes API answered {status}: {text[:300]}"
    if status == _CONFLICT:
        raise Conflicts(problem)
    raise UnknownBinding(problem) if status >= _SERVER_ERROR or status == _TIMEOUT else NotBound(problem)


async def bound_node(config: HooksConfig, given: Binding) -> str | None:
    """The node that a pod is bound to; empty: none. None if the pod is gone. UnknownBinding if that cannot be read."""
    try:
        status, text = await _call(config, "GET", _path(given), None)
    except NotBound as error:
        raise UnknownBinding(str(error.args[0])) from None
    if status == _NOT_FOUND:
        return None
    if status not in _DONE:
        raise UnknownBinding(f"the Kubernetes API answered {status}: {text[:300]}")
    try:
        pod = msgspec.json.decode(text, type=_Pod)
    except msgspec.MsgspecError as error:
        raise UnknownBinding(f"the Kubernetes API answered no pod: {error}") from None
    return pod.spec.node if pod.metadata.uid == given.uid else None


def _path(given: Binding) -> str:
    return f"/api/v1/namespaces/{given.namespace}/pods/{given.name}"


async def _call(config: HooksConfig, method: str, path: str, body: bytes | None) -> tuple[int, str]:
    """Status and text of the answer. NotBound if the request was not sent, UnknownBinding if there is no answer."""
    import httpx  # takes its time to import

    headers = {} if body is None else {"content-type": "application/json"}
    if config.kubernetes_token_file:
        try:
            token = await trio.Path(config.kubernetes_token_file).read_text()  # read each time: tokens are renewed
        except (OSError, UnicodeDecodeError) as error:
            raise NotBound(f"the token of the Kubernetes API cannot be read: {error}") from None
        headers["authorization"] = f"Bearer {token.strip()}"
    not_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
    try:
        verify = await trio.to_thread.run_sync(_trust, config.kubernetes_ca_file)
        async with httpx.AsyncClient(timeout=SECONDS, verify=verify) as client:
            url = config.kubernetes_api.rstrip("/") + path
            answer = await client.request(method, url, content=body, headers=headers)
            return answer.status_code, answer.text
    except (*not_sent, httpx.InvalidURL, OSError) as error:
        raise NotBound(f"the Kubernetes API cannot be reached: {error}") from None
    except httpx.HTTPError as error:
        raise UnknownBinding(f"the Kubernetes API did not answer: {type(error).__name__} {error}") from None


def _trust(ca_file: str) -> ssl.SSLContext:
    """Certificates that the Kubernetes API is known by. OSError."""
    return ssl.create_default_context(cafile=str(Path(ca_file)) if ca_file else None)
