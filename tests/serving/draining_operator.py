"""A kopf operator for the drain test: one handler, and a server whose certificate is there from the start."""
import os
import pathlib
from typing import Any

import kopf

from serving import support

CA_FILE = "TEST_CA_FILE"  # where the operator leaves the CA's certificate
PORT = "TEST_PORT"
HANDED_OVER = "the seat is handed over"


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    authority = support.Authority()
    pathlib.Path(os.environ[CA_FILE]).write_text(authority.pem)
    settings.scanning.disabled = True
    settings.admission.server = support.make_server(
        authority.issue(), port=int(os.environ[PORT]), drain_seconds=2, on_drain=lambda: print(HANDED_OVER))


@kopf.on.validate("", "v1", "configmaps")
async def validate_configmap(**_: Any) -> None:
    pass
