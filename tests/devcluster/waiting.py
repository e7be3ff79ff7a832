"""Waiting for a condition, with an error that says what was seen last."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class WaitTimeout(AssertionError):
    """A condition did not come true in time. `last` is the last value, or the last exception, of the condition."""

    def __init__(self, what: str, timeout: float, last: object) -> None:
        super().__init__(f"gave up after {timeout:g} s waiting for {what}; last seen: {last!r}")
        self.what = what
        self.timeout = timeout
        self.last = last


def wait_for(
    condition: Callable[[], Value],
    timeout: float = 30.0,
    what: str = "the condition",
    *,
    interval: float = 0.1,
    ignore: tuple[type[Exception], ...] = (AssertionError, LookupError, OSError, RuntimeError),
) -> Value:
    """Return the first true value of `condition()`, which is asked every `interval` seconds.

    Exceptions in `ignore` mean "not yet": while a server restarts, most questions fail. Raises `WaitTimeout`.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except ignore as error:
            last = error
        if time.monotonic() >= deadline:
            raise WaitTimeout(what, timeout, last) from (last if isinstance(last, Exception) else None)
        time.sleep(interval)
