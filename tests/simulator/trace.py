"""What happened, in the order in which it happened, kept as values and written out only when it is wanted."""


class Trace:
    """Lines of a run: when (simulated seconds), who, what."""

    def __init__(self) -> None:
        self._lines: list[tuple[float, str, str, object]] = []

    def add(self, now: float, who: str, what: str, detail: object = "") -> None:
        self._lines.append((now, who, what, detail))

    def __len__(self) -> int:
        return len(self._lines)

    def render(self, last: int | None = None) -> str:
        lines = self._lines if last is None else self._lines[-last:]
        omitted = len(self._lines) - len(lines)
        head = [f"... {omitted} earlier lines"] if omitted else []
        body = (f"{now:12.3f}  {who:10} {what} {detail}".rstrip() for now, who, what, detail in lines)
        return "\n".join([*head, *body])
