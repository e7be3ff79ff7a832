"""Every Python that is supported: which of them this machine has, and whether the tests pass on each."""
