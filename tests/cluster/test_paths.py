"""Names in paths: whoever writes a name must not choose the path."""
import pytest

from steadyhook.cluster import client, paths

BAD_NAMES = ["", ".", "..", "../../other/secrets/ca", "a/b", "/", "a%2Fb", "%2e%2e"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_would_lead_elsewhere_is_refused_in_every_path(name: str) -> None:
    for make in (
        lambda: paths.secret("ns", name), lambda: paths.secret(name, "a"), lambda: paths.secrets(name),
        lambda: paths.events(name), lambda: paths.node(name), lambda: paths.pod("ns", name),
        lambda: paths.pod(name, "a"), lambda: paths.service("ns", name), lambda: paths.service(name, "a"),
        lambda: paths.certificate("ns", name), lambda: paths.certificate(name, "a"), lambda: paths.certificates(name),
        lambda: paths.manager_node("ns", name), lambda: paths.manager_nodes(name), lambda: paths.peering("ns", name),
        lambda: paths.peering(name, "a"), lambda: paths.endpoint_slices("ns", name),
        lambda: paths.endpoint_slices(name, "a"), lambda: paths.configuration("APIService", name),
    ):
        with pytest.raises(client.Malformed, match="nothing was asked, correct the name"):
            make()


@pytest.mark.parametrize("name", ["hook,other=x", "*", "(a)", "a b", "-a", "a" * 64])
def test_a_service_that_would_be_more_than_a_value_in_a_selector_is_refused(name: str) -> None:
    with pytest.raises(client.Malformed, match="no Service can have it"):
        paths.endpoint_slices("ns", name)


def test_what_has_a_meaning_in_an_address_is_quoted() -> None:
    assert paths.secret("ns", "a?watch=true#b") == "/api/v1/namespaces/ns/secrets/a%3Fwatch%3Dtrue%23b"
    assert paths.configuration("APIService", "v1.example.io").endswith("/apiservices/v1.example.io")
    assert paths.pod("ns", "a...b").endswith("/pods/a...b")
