"""
The issuing half: an instance that holds a seat in the peering stands by, and the active one issues.

``candidacy`` wins and keeps the seat, ``operator`` watches, ``reconciling`` observes, decides and writes.
"""
