"""
Admission handlers to begin with: what `kopf run -m steadyhook.manager -m steadyhook.example` serves.

Copy this module and replace the rules. A handler gets the object and decides from it alone: one that calls the API
server makes every write in the cluster wait for it. The id of a handler is the path in the webhook configuration's
``clientConfig.service.path``; Kubernetes allows no underscore there, so a function's name does not always do.
"""
from typing import Any

import kopf

REPLICAS = "replicas"
ADMITTED = "steadyhook.io/admitted"


@kopf.on.validate("", "v1", "configmaps", id="validate-configmap", operations=["CREATE", "UPDATE"])
async def validate_configmap(body: kopf.Body, **_: Any) -> None:
    """Deny a ConfigMap whose ``data.replicas``, if there is one, is not a positive whole number."""
    found = (body.get("data") or {}).get(REPLICAS)
    if found is not None and not _is_positive(found):
        raise kopf.AdmissionError(
            f'data.{REPLICAS} is "{found}", expected a positive whole number such as "3";'
            " correct the value or leave the key out", code=422)


@kopf.on.mutate("", "v1", "configmaps", id="default-configmap", operations=["CREATE", "UPDATE"])
async def default_configmap(patch: kopf.Patch, **_: Any) -> None:
    """Label each ConfigMap that passed through here."""
    patch.metadata.labels[ADMITTED] = "true"


def _is_positive(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0
