"""What a decision asks for. Each action carries what it was decided from; carrying it out is compare-and-swap."""
import dataclasses

from steadyhook.core import facts, reasons


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CreateAuthority:
    """
    Make a new CA and write the CA Secret: created when ``replaces`` is None, else in place of that one.

    ``provided``: not a new one, but this one of the user's.
    """

    replaces: facts.Secret | None
    bundle: tuple[facts.Certificate, ...]  # what is trusted besides the new CA
    reason: reasons.Reason
    request: str | None = None
    provided: facts.Certificate | None = None
    retired: tuple[facts.Fingerprint, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExtendBundle:
    """Write the grown trust bundle into the CA Secret."""

    authority: facts.Authority
    bundle: tuple[facts.Certificate, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InjectBundle:
    """Write the trust bundle into every webhook of a configuration."""

    configuration: facts.Configuration
    bundle: tuple[facts.Certificate, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IssueLeaf:
    """Sign a leaf with the CA Secret's signer and write the leaf Secret, content and ready mark together."""

    replaces: facts.Secret | None
    signer: facts.Certificate
    bundle: tuple[facts.Certificate, ...]
    generation: int
    reason: reasons.Reason
    request: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AddSuccessor:
    """Make the next CA, beside the present one: it signs nothing yet, and it is in the bundle from now on."""

    authority: facts.Authority
    bundle: tuple[facts.Certificate, ...]  # what is trusted besides the successor
    request: str | None
    provided: facts.Certificate | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Write down that the successor signs from now on, so that whatever is lost later, nobody goes backwards."""

    authority: facts.Authority
    bundle: tuple[facts.Certificate, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Let the successor be the present signer, with this bundle; what is not in it any more is retired."""

    authority: facts.Authority
    bundle: tuple[facts.Certificate, ...]
    retired: tuple[facts.Fingerprint, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """
    Mark Secrets as static, whatever they hold at that moment, so that listeners of dynamiclistener leave them alone.

    The one write without a resourceVersion: among many writers a conditional one would hardly ever come through, and
    any consistent content will do, since it is looked at afterwards.
    """

    secrets: tuple[facts.Secret, ...]


Step = Freeze | CreateAuthority | ExtendBundle | InjectBundle | IssueLeaf | AddSuccessor | Switch | Promote
