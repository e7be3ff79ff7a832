"""
The serving half: a listener, and what keeps it supplied and reports on it.

The layer's rule: the listener (tls, admission, endpoints, readiness, sockets) serves what it is handed. It reads no
Secret, talks to no API server and parses no certificate; the keeper and the reporter do, and nothing that befalls them
takes away what is being served.
"""
