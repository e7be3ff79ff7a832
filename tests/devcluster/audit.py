"""The API server's audit log: who asked for what, and what was answered."""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

COMPLETE = ("ResponseComplete", "Panic")

JsonObject = dict[str, Any]


class AuditLog:
    """Reads the audit log of a running or ended API server. Positions are offsets in bytes.

    What is logged is said in audit_policy.json: secrets without bodies, kopfpeerings with both bodies, steadyhook's
    objects and the webhook configurations with the request's body, every request of a ServiceAccount outside
    kube-system, and what the admin writes. An event may come a moment after its response: wait for it.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def position(self) -> int:
        """The end of the last whole event."""
        try:
            with self.path.open("rb") as file:
                return _end_of_last_line(file.fileno(), self.path.stat().st_size)
        except FileNotFoundError:
            return 0

    def events(self, since: int = 0, stages: tuple[str, ...] = COMPLETE) -> Iterator[JsonObject]:
        """Yield events of these stages from a position on; watches that are open have only "ResponseStarted"."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(since)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                event: JsonObject = json.loads(line)
                if event.get("stage") in stages:
                    yield event

    def select(
        self,
        *,
        verb: str | tuple[str, ...] | None = None,
        resource: str | None = None,
        subresource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        user: str | None = None,
        code: int | tuple[int, ...] | None = None,
        since: int = 0,
        stages: tuple[str, ...] = COMPLETE,
    ) -> list[JsonObject]:
        """Return the events that match every argument given.

        `resource` is "secrets", or "managernodes/status" for one subresource of it. "secrets" matches its subresources
        too unless `subresource` is given ("" for none). `user` is a whole user name, or the end of one after a colon:
        "steadyhook-manager" matches "system:serviceaccount:steadyhook-system:steadyhook-manager".
        """
        if resource is not None and "/" in resource:
            resource, subresource = resource.split("/", 1)
        verbs = (verb,) if isinstance(verb, str) else verb
        codes = (code,) if isinstance(code, int) else code
        found = []
        for event in self.events(since, stages):
            target = event.get("objectRef") or {}
            wanted = (
                (resource, target.get("resource", "")),
                (subresource, target.get("subresource", "")),
                (namespace, target.get("namespace", "")),
                (name, name_of(event)),
            )
            if any(want is not None and want != is_ for want, is_ in wanted):
                continue
            if verbs is not None and event.get("verb") not in verbs:
                continue
            if codes is not None and code_of(event) not in codes:
                continue
            if user is not None and not _is_user(event, user):
                continue
            found.append(event)
        return found

    def count(
        self,
        *,
        verb: str | tuple[str, ...] | None = None,
        resource: str | None = None,
        subresource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        user: str | None = None,
        code: int | tuple[int, ...] | None = None,
        since: int = 0,
        stages: tuple[str, ...] = COMPLETE,
    ) -> int:
        """How many events `select` returns for the same arguments."""
        return len(
            self.select(
                verb=verb,
                resource=resource,
                subresource=subresource,
                namespace=namespace,
                name=name,
                user=user,
                code=code,
                since=since,
                stages=stages,
            )
        )


def code_of(event: JsonObject) -> int:
    """The HTTP status of the response; 0 while there is none."""
    return int((event.get("responseStatus") or {}).get("code", 0))


def name_of(event: JsonObject) -> str:
    """The object's name. That of a create is in its bodies only; without a body in the log it is ""."""
    target = event.get("objectRef") or {}
    if target.get("name"):
        return str(target["name"])
    for body in ("responseObject", "requestObject"):
        if name := ((event.get(body) or {}).get("metadata") or {}).get("name"):
            return str(name)
    return ""


def _is_user(event: JsonObject, user: str) -> bool:
    username = str((event.get("user") or {}).get("username", ""))
    return username == user or username.endswith(f":{user}")


def _end_of_last_line(descriptor: int, size: int) -> int:
    step = 65536
    end = size
    while end > 0:
        start = max(0, end - step)
        chunk = os.pread(descriptor, end - start, start)
        newline = chunk.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
