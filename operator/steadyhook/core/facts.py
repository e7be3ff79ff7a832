"""
Facts: what was seen in the cluster, as plain values.

PEM becomes facts once, in ``pki``; from there on certificates are compared by fingerprint. A ``pem`` field is
carried along as opaque text, to be written again, and is never looked into here.
"""
import collections.abc
import dataclasses
import datetime
import enum

from steadyhook.core import reasons

Fingerprint = str
"""The SHA-256 of a certificate's DER, as 64 lower-case hexadecimal digits."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed X.509 certificate."""

    fingerprint: Fingerprint
    not_before: datetime.datetime
    not_after: datetime.datetime
    dns_names: frozenset[str] = frozenset()
    is_ca: bool = False
    key_algorithm: str = ""
    pem: str = dataclasses.field(default="", repr=False, compare=False)

    def has_begun(self, now: datetime.datetime) -> bool:
        """Whether its validity has; that it has not ended is another question."""
        return self.not_before <= now


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """What is wrong with an object, for a person to read. ``message`` names the value found and what was expected."""

    reason: reasons.Reason
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """The API object around a certificate, as far as writing it needs it."""

    name: str
    uid: str
    resource_version: str
    recreate: bool = False  # of a type, or marked immutable, that an update cannot mend: only delete and create
    static: bool = False  # listeners of dynamiclistener leave it alone
    ours: bool = True  # it bears our marks, or is of a kind that is to be adopted


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """The leaf Secret. ``defect`` is set when it cannot be read as one; then ``certificate`` is None."""

    secret: Secret
    defect: Defect | None = None
    certificate: Certificate | None = None
    trusted: tuple[Certificate, ...] = ()  # ca.crt, the trust bundle as it was at issuance
    signers: frozenset[Fingerprint] = frozenset()  # CA certificates, from every place seen, that verify the leaf
    ready_mark: str | None = None
    generation: int | None = None
    request: str | None = None  # the last request for a new leaf that was fulfilled
    adopted: bool = False  # made by a dynamiclistener: without marks and bundle, and good as it is


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """
    The CA Secret: the present signer, during a rotation the next one, and the current trust bundle.

    ``retired``: what a rotation has taken out of the bundle, so that nothing brings it back. ``request``: the last
    request for a rotation that was taken up.
    """

    secret: Secret
    defect: Defect | None = None
    certificate: Certificate | None = None
    successor: Certificate | None = None  # the next signer, if there is one whose key is at hand
    successor_damaged: bool = False  # there was to be one, but it cannot be used
    switched: bool = False  # leaves are signed by the successor from now on
    retired: tuple[Fingerprint, ...] = ()  # the oldest first
    request: str | None = None
    bundle: tuple[Certificate, ...] = ()  # the signer and whatever of the bundle could be read
    bundle_damaged: bool = False  # some of the bundle could not be read, or it lacks the signer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One place in a configuration object that holds a caBundle, and what is in it.

    ``pointer`` and ``guard`` are JSON pointers (RFC 6901): to the bundle, and to a value that must not have changed
    for the bundle to be written there.
    """

    name: str
    trusted: tuple[Certificate, ...] = ()
    readable: bool = True  # False: some of it could not be read, which others may be able to read
    pointer: str = ""
    guard: tuple[str, str] = ("", "")
    service: tuple[str, str] | None = None  # (namespace, name) of what is called
    service_port: int = 443  # the Service's port, not the pods'


class ConfigurationState(enum.StrEnum):
    """What is known of our right to write a webhook configuration."""

    OPEN = "Open"  # a patch was accepted, if only for trial
    UNTRIED = "Untried"  # whether we may is not known yet
    FORBIDDEN = "Forbidden"  # the API server refused the last patch
    REJECTED = "Rejected"  # an admission policy or webhook refused the last patch
    CONTESTED = "Contested"  # someone else keeps overwriting it
    READ_ONLY = "ReadOnly"  # the application's own to write, from the CA Secret
    UNREADABLE = "Unreadable"  # never ours, and some of what it trusts would be lost
    CROWDED = "TooManyCertificates"  # never ours, and it trusts more than can be taken over


TAKEOVER_LIMIT = 64
"""How many certificates one object can bring into the trust bundle, which goes into every other one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """An object that holds caBundles and asks for this certificate's bundle by annotation."""

    kind: str
    name: str
    uid: str
    resource_version: str
    entries: tuple[Entry, ...]
    known: bool = False  # it carried our bundle before: what it holds beyond that was put there by someone else
    state: ConfigurationState = ConfigurationState.OPEN

    @property
    def standing(self) -> ConfigurationState:
        """Its state; what was never ours is not written as long as that would cost it some of its trust."""
        if self.state is not ConfigurationState.OPEN or self.known:
            return self.state
        if not all(entry.readable for entry in self.entries):
            return ConfigurationState.UNREADABLE
        if len({item.fingerprint for entry in self.entries for item in entry.trusted}) > TAKEOVER_LIMIT:
            return ConfigurationState.CROWDED
        return self.state

    @property
    def is_taken_over(self) -> bool:
        """Whether it becomes ours now, so that what it trusted until now has to be trusted further."""
        return self.standing is ConfigurationState.OPEN and not self.known


class Proof(enum.StrEnum):
    """What a handshake with an endpoint has shown."""

    GOOD = "Good"  # the certificate it serves verifies under the bundle that is left after the rotation
    WRONG = "Wrong"
    UNREACHABLE = "Unreachable"
    SKIPPED = "Skipped"  # looking is switched off


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """
    A pod that serves the webhook: an endpoint of its Service, an entry in a ManagerNode, or both, by pod UID.

    ``fingerprint`` is what it says it serves, None if it has not said anything. ``proof`` is what was seen on the wire,
    None if nobody has looked. ``address`` is where it is called, for people; None for one that is no endpoint.
    """

    pod_uid: str
    name: str
    fingerprint: Fingerprint | None = None
    proof: Proof | None = None
    address: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    All that the issuer looks at before it decides about one certificate.

    ``trusted_seconds`` says for how long this very instance, by its own monotonic clock, has seen each CA in every
    configuration that can be written, and ``acknowledged_seconds`` for how long every server has served the leaf of
    the successor; both start anew when another instance becomes active.
    """

    leaf: Leaf | None
    authority: Authority | None
    remembered: frozenset[Fingerprint] = frozenset()  # the trust bundle, as the status has it
    retired: tuple[Fingerprint, ...] = ()  # what has left the trust bundle, as the status has it
    contested: frozenset[str] = frozenset()  # Secrets, by name, that somebody else rewrites again and again
    configurations: tuple[Configuration, ...] = ()
    strays: tuple[str, ...] = ()  # configurations that ask for the bundle of a certificate that does not exist
    left_out: int = 0  # so many more configurations ask for the bundle than are looked after
    last_generation: int = 0  # of the last leaf that is known to have been issued, 0 for none
    last_signer: Fingerprint | None = None
    trusted_seconds: collections.abc.Mapping[Fingerprint, float] = dataclasses.field(default_factory=dict)
    provided: Certificate | None = None  # a CA of the user's own, if there is to be one and it can be used
    provided_defect: Defect | None = None  # why it cannot
    servers: tuple[Server, ...] = ()
    servers_defect: Defect | None = None  # why nobody knows who serves; then ``servers`` means nothing
    foreign_entries: tuple[str, ...] = ()  # what a node says of pods that are not on it, which nobody believes
    lost_callers: tuple[str, ...] = ()  # configurations that trust our CA and call by a name that no leaf has
    acknowledged_seconds: float = 0.0
    waiting_seconds: float = 0.0  # for how long acknowledgements are waited for
    held_seconds: float = 0.0  # for how long configurations that do not trust the next signer are waited for
