"""A stand-in for SoftLayer's XML-RPC API, in memory: guests, with transactions that take time and refuse changes, host
names that may repeat, filters, limits, and object masks that are ignored."""

from __future__ import annotations

import itertools
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ZONES = ("ams03", "dal13", "fra02")
Item = dict[str, Any]


class Cloud:
    """``ready``: seconds that transactions take. ``fail``: called with each method; a Fault that it raises is the
    answer. ``between``: called after each page of a listing."""

    def __init__(self, ready: float) -> None:
        self.ready = ready
        self.fail: Callable[[str], None] = lambda method: None
        self.between: Callable[[], None] = lambda: None
        self.guests: dict[int, Item] = {}
        self._ids, self._lock = itertools.count(1000), threading.Lock()

    def answer(self, service: str, method: str, headers: Mapping[str, Any], arguments: list[Any]) -> Any:
        login = headers.get("authenticate") or {}
        if login.get("apiKey") != "secret":
            raise xmlrpc.client.Fault("SoftLayer_Exception_InvalidLegacyToken", "Invalid API token.")  # type: ignore[arg-type]  # the real service's codes are texts
        self.fail(method)
        with self._lock:
            self._reclaim()
            if (service, method) == ("SoftLayer_Account", "getVirtualGuests"):
                return self._listed(headers)
            if (service, method) == ("SoftLayer_Virtual_Guest", "getCreateObjectOptions"):
                return {"datacenters": [{"template": {"datacenter": {"name": zone}}} for zone in ZONES]}
            if (service, method) == ("SoftLayer_Virtual_Guest", "createObject"):
                return self._shown(self.make(**arguments[0]))
            key = int((headers.get(f"{service}InitParameters") or {}).get("id", 0))
            if key not in self.guests:
                text = f"Unable to find object with id of '{key}'."
                raise xmlrpc.client.Fault("SoftLayer_Exception_ObjectNotFound", text)  # type: ignore[arg-type]  # as above
            return self._change(self.guests[key], method)

    def make(self, hostname: str, domain: str, **order: Any) -> Item:
        """Order a guest."""
        key, flavor = next(self._ids), (order.get("supplementalCreateObjectOptions") or {}).get("flavorKeyName")
        cpus, memory = flavor.split("_")[1].split("X")[:2] if flavor else (0, 0)
        self.guests[key] = {
            "id": key,
            "hostname": hostname,
            "domain": domain,
            "notes": order.get("notes", ""),
            "maxCpu": order.get("startCpus") or int(cpus),
            "maxMemory": order.get("maxMemory") or int(memory) * 1024,
            "datacenter": order.get("datacenter", {"name": "dal13"}),
            "powerState": {"keyName": "RUNNING"},
            "busy": time.monotonic() + self.ready,
            "what": "CLOUD_INSTANCE_NETWORK_RECLAIM",  # a step of making guests too, by its name
            "order": order,
        }
        return self.guests[key]

    def _change(self, guest: Item, method: str) -> Any:
        if method == "getObject":
            return self._shown(guest)
        if time.monotonic() < guest["busy"]:
            text = "This cancellation could not be processed: a transaction is in progress."
            raise xmlrpc.client.Fault("SoftLayer_Exception_Public", text)  # type: ignore[arg-type]  # as above
        if method == "deleteObject":
            guest.update(busy=time.monotonic() + self.ready, what="RECLAIM_WAIT", made=True)
        elif method in ("powerOn", "resume"):
            guest["powerState"] = {"keyName": "RUNNING"}
        elif method in ("powerOff", "powerOffSoft"):
            if method == "powerOff" or not guest.get("deaf"):
                guest["powerState"] = {"keyName": "HALTED"}
        else:
            raise xmlrpc.client.Fault(-32601, f"no method {method}")
        return True

    def _shown(self, guest: Item) -> Item:
        busy = time.monotonic() < guest["busy"]
        made = {"provisionDate": "2026-01-01T00:00:00+00:00"} if guest.get("made") or not busy else {}
        active = {"transactionStatus": {"name": guest["what"]}} if busy else ""
        hidden = ("busy", "what", "made", "order", "deaf")
        return (
            {name: value for name, value in guest.items() if name not in hidden} | made | {"activeTransaction": active}
        )

    def _reclaim(self) -> None:
        for key, guest in list(self.guests.items()):
            if guest["what"] == "RECLAIM_WAIT" and time.monotonic() >= guest["busy"]:
                del self.guests[key]

    def _listed(self, headers: Mapping[str, Any]) -> list[Item]:
        only = (headers.get("SoftLayer_AccountObjectFilter") or {}).get("virtualGuests", {})
        prefix = only.get("hostname", {}).get("operation", "^= ").removeprefix("^= ")
        found = [self._shown(guest) for guest in self.guests.values() if guest["hostname"].startswith(prefix)]
        limits = headers.get("resultLimit")
        if limits is None:
            return found
        self.between()
        return found[limits["offset"] : limits["offset"] + limits["limit"]]

    @contextmanager
    def served(self) -> Iterator[tuple[str, int]]:
        """Host and port, while it is served."""
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                (first, *arguments), method = xmlrpc.client.loads(raw)
                assert isinstance(first, dict)
                assert method is not None
                try:
                    result = cloud.answer(self.path.rpartition("/")[2], method, first["headers"], list(arguments))
                    body = xmlrpc.client.dumps((result,), methodresponse=True, allow_none=True)
                except xmlrpc.client.Fault as fault:
                    body = xmlrpc.client.dumps(fault, methodresponse=True)
                self.send_response(200)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield "127.0.0.1", int(server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()
