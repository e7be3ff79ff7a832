"""Whether this instance should get requests, and if not, why. Set from any thread, read by /readyz."""
import enum
import threading
from collections.abc import Callable


class State(enum.StrEnum):
    STARTING = "Starting"
    WAITING = "Waiting"
    SERVING = "Serving"
    DRAINING = "Draining"


class Readiness:
    """
    ::

        Starting --wait--> Waiting <--wait / serve--> Serving --drain--> Draining
           +----------------------serve------------------^

    Draining can be entered from anywhere and is final: what is said afterwards changes nothing.
    Besides the state there may be *obstacles*, each with a name: an instance that is Serving is ready only while it
    has none. ``check`` is asked for one more each time: it returns a reason or None.
    """

    def __init__(self, check: Callable[[], str | None] = lambda: None) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._state = State.STARTING
        self._reason = "the instance is starting"
        self._obstacles: dict[str, str] = {}

    def wait(self, reason: str) -> None:
        self._enter(State.WAITING, reason)

    def serve(self, message: str = "serving") -> None:
        self._enter(State.SERVING, message)

    def drain(self) -> None:
        self._enter(State.DRAINING, "the instance is shutting down")

    def obstruct(self, name: str, reason: str) -> None:
        """Be not ready because of ``reason`` until :meth:`clear` is called with the same name."""
        with self._lock:
            self._obstacles[name] = reason

    def clear(self, name: str) -> None:
        with self._lock:
            self._obstacles.pop(name, None)

    @property
    def state(self) -> State:
        with self._lock:
            return self._state

    @property
    def ready(self) -> bool:
        with self._lock:
            return self._state is State.SERVING and not self._all_obstacles()

    @property
    def reason(self) -> str:
        """Why it is not ready; what it serves, if it is."""
        with self._lock:
            obstacles = self._all_obstacles()
            if self._state is State.DRAINING or not obstacles:
                return self._reason
            state = [] if self._state is State.SERVING else [self._reason]
            return "; ".join([*state, *obstacles])

    def _all_obstacles(self) -> list[str]:
        found = self._check()
        return [*self._obstacles.values(), *([found] if found else [])]

    def _enter(self, state: State, reason: str) -> None:
        with self._lock:
            if self._state is not State.DRAINING:
                self._state, self._reason = state, reason
