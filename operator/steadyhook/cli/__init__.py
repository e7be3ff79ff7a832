"""
The command ``steadyhook``: see, explain and end a storm. Synchronous, on pykube-ng, without the operator's packages.

Deciding is pure here as well: what was looked at becomes values first, and what to say or do follows from these.
"""
