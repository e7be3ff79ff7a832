"""A module for ``kopf run``: a server that needs a certificate looks for an issuer each second, not each minute."""
from steadyhook.serving import issuers

issuers.NEED_SECONDS = 1.0
