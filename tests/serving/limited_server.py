"""A server in a process of its own for the tests of the limits: what it takes is seen from outside."""
import asyncio
import json
import pathlib
import sys
from typing import Any

import kopf

from serving import support
from steadyhook.serving import connections, intake


async def main(ca_file: str, options: dict[str, Any]) -> None:
    for name, value in options.pop("constants", {}).items():
        module, _, constant = name.partition(".")
        setattr({"connections": connections, "intake": intake}[module], constant, value)
    authority = support.Authority()
    pathlib.Path(ca_file).write_text(authority.pem)
    engine = support.Kopf()

    @kopf.on.validate("configmaps", id="check", registry=engine.registry)
    async def check(**_: Any) -> None:
        pass

    @kopf.on.validate("configmaps", id="slow", registry=engine.registry)
    async def slow(**_: Any) -> None:
        await asyncio.sleep(2)

    server = support.make_server(authority.issue(), health_port=0, **options)
    async with support.serve(server, engine.fn):
        print(json.dumps({"port": server.port, "health_port": server.health_port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the test closes it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
