"""
The API server: the only place in the operator that talks to it.

Objects come and go as plain dictionaries; what they mean is for ``pki`` and ``core``. Every write is a create, or
carries the resourceVersion that was read (optimistic locking); a conflict is an answer, not an error to retry.
"""
