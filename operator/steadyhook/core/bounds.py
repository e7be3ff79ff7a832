"""
How long the texts and lists in a status may be: what the CustomResourceDefinitions allow.

A status that exceeds them is refused as a whole, and then nobody is told anything.
"""
import collections.abc

MESSAGE_CHARACTERS = 1024
CONFIGURATIONS = 500
RETIRED = 100
NAMES = 5
"""So many names are told in a sentence, and of the others how many there are."""


def cut(message: str) -> str:
    """The message, shortened where it is too long."""
    return message if len(message) <= MESSAGE_CHARACTERS else message[:MESSAGE_CHARACTERS - 4] + " ..."


def listing(items: collections.abc.Sequence[str], separator: str = ", ") -> str:
    """The first items, and how many more there are."""
    more = len(items) - NAMES
    return separator.join(items[:NAMES]) + (f" and {more} more" if more > 0 else "")
