"""
Certificates and keys: the only place that imports ``cryptography``.

PEM and the data of Secrets become facts here, and decisions become PEM. No I/O, no clock: the time is an argument.
"""
