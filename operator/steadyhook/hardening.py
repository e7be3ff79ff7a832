"""What keeps the private keys in the memory of the process."""
import ctypes
import logging
import os
import resource

logger = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4


def protect() -> None:
    """
    Let the process leave no core dump, and let no other process of its user read its memory (ptrace(2), /proc).

    A core dump holds the keys, and is written to a disk. RLIMIT_CORE alone does not stop one that is piped to a
    program, as systemd-coredump has it. Both last for the life of the process, and end at execve(2).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        logger.warning("The process cannot be made undumpable: %s. A core dump of it could hold private keys.",
                       os.strerror(ctypes.get_errno()))
