"""
The listener: TLS, the admission server for kopf, and the endpoints for probes and metrics.

The layer's rule: it serves what it is handed and does not know where a certificate comes from. It reads no Secret,
talks to no API server and parses no certificate; whoever watches the Secret calls
:meth:`steadyhook.serving.tls.SwappableContext.swap`, from any thread.
"""
