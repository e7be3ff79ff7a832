"""A module for ``kopf run``: on one node of the cluster the clock is wrong. SKEWED is NODE=SECONDS."""
import datetime
import os

from steadyhook.cluster import clock

NODE, _, SECONDS = os.environ.get("SKEWED", "").partition("=")

if os.environ.get("NODE_NAME", "").endswith(NODE):
    clock.Clock.read = lambda self: (  # type: ignore[method-assign]
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=float(SECONDS)))
