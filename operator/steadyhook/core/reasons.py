"""Every reason that a decision can give: the one list behind conditions, Events, metric labels and log lines."""
import enum


class Reason(enum.StrEnum):
    """CamelCase, as the Kubernetes API conventions want the reason of a condition."""

    # What may be wrong with a Secret.
    SECRET_MISSING = "SecretMissing"
    WRONG_TYPE = "WrongType"
    KEY_MISSING = "DataKeyMissing"
    NOT_PEM = "NotPem"
    KEY_MISMATCH = "KeyMismatch"
    FOREIGN_SIGNER = "ForeignSigner"
    NOT_MARKED_READY = "NotMarkedReady"
    READY_MARK_STALE = "ReadyMarkStale"
    GENERATION_MISSING = "GenerationMissing"
    OLDER_GENERATION = "OlderGeneration"
    EXPIRED = "Expired"
    NOT_YET_VALID = "NotYetValid"
    WRONG_NAMES = "WrongDNSNames"
    PROVIDED_UNUSABLE = "ProvidedCAUnusable"
    PROVIDED_CHANGED = "ProvidedCAChanged"
    PROVIDED_ENDING = "ProvidedCAEnding"
    NOT_A_CA = "NotACertificateAuthority"
    NOT_USABLE = "NotUsable"
    NOT_OURS = "NotOurs"

    # Why a good leaf is replaced all the same.
    RENEWAL_DUE = "RenewalDue"
    SPEC_CHANGED = "SpecChanged"
    SIGNER_REPLACED = "SignerReplaced"
    REQUESTED = "Requested"

    # Where the issuer stands.
    UP_TO_DATE = "UpToDate"
    AS_EXPECTED = "AsExpected"
    CREATING_AUTHORITY = "CreatingAuthority"
    EXTENDING_BUNDLE = "ExtendingBundle"
    LEFT_OUT = "LeftOutOfTheBundle"
    FREEZING = "Freezing"
    INJECTING = "Injecting"
    SETTLING = "Settling"
    ISSUING_LEAF = "IssuingLeaf"
    INVALID_SPEC = "InvalidSpec"

    # Where a rotation of the CA stands.
    NOT_ROTATING = "NotRotating"
    STARTING_ROTATION = "StartingRotation"
    DISTRIBUTING = "Distributing"
    SWITCHING = "Switching"
    ACKNOWLEDGING = "Acknowledging"
    PROVING = "Proving"
    RETIRING = "Retiring"
    OVERDUE = "AcknowledgementOverdue"
    WRONG_CERTIFICATE = "WrongCertificateServed"
    SERVERS_UNKNOWN = "ServersUnknown"
    NOT_DIALED = "EndpointsNotDialed"
    FOREIGN_ENTRY = "ForeignEntry"

    # How a webhook configuration stands.
    INJECTED = "Injected"
    PENDING = "Pending"
    NO_SUCH_CERTIFICATE = "NoSuchCertificate"
    OVERWRITTEN = "Overwritten"
    FORBIDDEN = "Forbidden"
    REJECTED = "Rejected"
    CONTESTED = "Contested"
    READ_ONLY = "ReadOnly"
    UNTRIED = "Untried"
    UNREADABLE = "Unreadable"
    CROWDED = "TooManyCertificates"
    NO_CONFIGURATION = "NoConfiguration"
    NAME_STILL_CALLED = "NameStillCalled"

    # Where a server stands.
    SERVING = "Serving"
    NOT_SERVED = "LeafNotServed"
    WAITING_FOR_SECRET = "WaitingForSecret"
    API_UNREACHABLE = "APIServerUnreachable"
