"""
The pure core under a model of the API server, with every fault that can be thought of; seeded, and replayed by seed.

``python -m simulator --seed 17`` shows the schedule and the trace of one run, ``python -m simulator --runs 100000``
searches for longer than the tests do.
"""
