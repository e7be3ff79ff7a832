"""
The decisions. Everything in here is a pure function over what was seen: no clock, no I/O, no PEM parsing.

Standard library only. Time is an argument; what is to be done is a value that is returned.
"""
