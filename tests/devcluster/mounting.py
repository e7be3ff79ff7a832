"""A mount namespace for a process, in which the credentials of its pod are where those of every pod are.

A process has no file system of its own, so each would see the same /var/run/secrets. In a mount namespace of its own
(unshare(1)) a small file system in memory covers /var/run, and a link in it leads to the pod's folder.
"""

import functools
import os
import pathlib
import subprocess

SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")

_SCRIPT = """
folder=$1; shift
mount -t tmpfs -o mode=0755 devcluster "$(readlink -f /var/run)"
mkdir -p /var/run/secrets/kubernetes.io
ln -s "$folder" /var/run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""
_TRY_SECONDS = 10


def command(folder: pathlib.Path, line: tuple[str, ...]) -> tuple[str, ...]:
    """The command line that runs ``line``, by the same process id, where `SERVICE_ACCOUNT` is this folder."""
    # Who is not root becomes it in a user namespace, which may be forbidden.
    unprivileged = () if os.geteuid() == 0 else ("--map-root-user",)
    return ("unshare", "--mount", *unprivileged, "--propagation", "private", "sh", "-ec", _SCRIPT, "sh", str(folder),
            *line)


@functools.cache
def hindrance() -> str | None:
    """Why this machine cannot do it, or None."""
    try:
        done = subprocess.run(command(pathlib.Path("/"), ("test", "-d", str(SERVICE_ACCOUNT))), capture_output=True,
                              text=True, timeout=_TRY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no mount namespace can be made here: {error}"
    return f"no mount namespace can be made here: {done.stderr.strip()}" if done.returncode else None
