"""
kopf's registries of handlers, taken apart. kopf has no public names for what is in a registry.

A registry holds the handlers of activities (startup, cleanup, login), of admission, indexes, and the ordinary ones,
which react to objects: event, create, update, delete, timers, daemons. An index does nothing but remember, for the
handlers of every other kind.
"""
import collections.abc

import kopf

_ORDINARY = ("_watching", "_spawning", "_changing")


def ordinary_handlers(registry: kopf.OperatorRegistry) -> tuple[str, ...]:
    """The ids of the ordinary handlers, in their order, each once."""
    found = (str(handler.id) for name in _ORDINARY for handler in getattr(registry, name).get_all_handlers())
    return tuple(dict.fromkeys(found))


def split(registry: kopf.OperatorRegistry, *, without: collections.abc.Container[str]) -> kopf.OperatorRegistry:
    """
    A new registry with the ordinary handlers, which the given one loses, and with a copy of the indexes and activities.

    Admission handlers, which stay, may look into an index: one that nobody fills would let them decide wrongly.
    ``without``: the modules whose handlers of activities stay out of the new one.
    """
    result = kopf.OperatorRegistry()
    for name in _ORDINARY:
        empty = getattr(result, name)
        setattr(result, name, getattr(registry, name))
        setattr(registry, name, empty)
    for index in registry._indexing.get_all_handlers():
        result._indexing.append(index)
    for handler in registry._activities.get_all_handlers():
        if handler.fn.__module__ not in without:
            result._activities.append(handler)
    return result
