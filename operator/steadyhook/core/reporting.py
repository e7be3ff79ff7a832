"""What an instance says of itself in its node's ManagerNode. Written only when it differs from what is there."""
import collections.abc
import datetime
from typing import Any

from steadyhook.core import bounds, election, serving

Entry = dict[str, Any]


def entry(
    *, pod_uid: str, pod_name: str, address: str, certificate: str, verdict: serving.Verdict,
    role: election.Role | None, problem: str | None, previous: collections.abc.Mapping[str, Any] | None,
    now: datetime.datetime, notices: collections.abc.Iterable[str] = (),
) -> Entry:
    """
    The entry of one instance. ``since`` is when it came to this phase with this certificate.

    ``problem``: what keeps the instance from issuing, told while it waits for somebody to do so. ``notices``: what a
    person has to know of, told in any phase.
    """
    message = "; ".join([verdict.message, *notices])
    if problem and verdict.phase is not serving.Phase.SERVING:
        message = f"{message}; this instance cannot issue: {problem}"
    result: Entry = {
        "podUID": pod_uid, "podName": pod_name, "address": address, "certificate": certificate,
        "phase": str(verdict.phase), "reason": str(verdict.reason), "message": bounds.cut(message),
    }
    if role is not None:
        result["role"] = str(role)
    if verdict.served is not None:
        result["fingerprint"] = verdict.served.certificate.fingerprint
        result["generation"] = verdict.served.generation
        result["notAfter"] = f"{verdict.served.certificate.not_after:%Y-%m-%dT%H:%M:%SZ}"
    same = previous is not None and all(previous.get(key) == result.get(key) for key in ("phase", "fingerprint"))
    since = previous.get("since") if previous is not None and same else None
    result["since"] = since if isinstance(since, str) else f"{now:%Y-%m-%dT%H:%M:%SZ}"
    return result


def merge(
    instances: collections.abc.Iterable[collections.abc.Mapping[str, Any]], *, pod_uid: str, own: Entry | None,
    gone: collections.abc.Container[str] = frozenset(),
) -> list[Entry]:
    """The list of instances with one's own entry in place (None: taken out) and those of pods that are gone dropped."""
    others = [item for item in map(_entry, instances) if item is not None
              and item["podUID"] != pod_uid and item["podUID"] not in gone]
    return sorted([*others, *([own] if own else [])], key=lambda item: str(item["podUID"]))


def find(instances: collections.abc.Iterable[collections.abc.Mapping[str, Any]], pod_uid: str) -> Entry | None:
    """The entry of this instance, or None."""
    return next((item for item in map(_entry, instances) if item is not None and item["podUID"] == pod_uid), None)


def _entry(item: Any) -> Entry | None:
    """A copy of an entry, None for what the definition would not let through today."""
    return dict(item) if isinstance(item, collections.abc.Mapping) and isinstance(item.get("podUID"), str) else None
