"""Measurements, never assertions: ``python -m benchmarks`` (or ``make bench``) prints the figures of the README."""
