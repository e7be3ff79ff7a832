"""With nothing to do nothing is written; what is left behind is cleared up; what a person deletes comes back."""
import collections
import signal

import pytest

from devcluster import api
from scenarios import installation, instances
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster

POD_NAME_CLAIM = "authentication.kubernetes.io/pod-name"
MANAGERNODES = "/apis/steadyhook.io/v1alpha1/namespaces/{}/managernodes"

Requests = collections.Counter[tuple[str, str, str]]


@pytest.fixture
def quiet(install: Install) -> installation.Installation:
    """Four nodes, one of them without a seat, when everything that was to be said has been said."""
    installed = install(nodes=4)
    installed.wait_serving()
    instances.wait_settled(installed)

    def told() -> bool:
        roles = sorted(item["role"] for item in installed.instances())
        status = installed.certificate()["status"]
        return roles == ["active", "candidate", "candidate", "reserve"] and status["acknowledged"] == "4/4"

    installed.cluster.wait_for(told, 60, "roles and acknowledgements to be told")
    return installed


def own_events(installed: installation.Installation, since: int, stage: str) -> list[installation.JsonObject]:
    """The requests of this installation's accounts for objects; not those for the API's own directory."""
    prefix = f"system:serviceaccount:{installed.namespace}:"
    return [event for event in installed.cluster.audit.events(since, (stage,))
            if event["user"]["username"].startswith(prefix) and "objectRef" in event]


def pod_of(event: installation.JsonObject) -> str:
    return str(event["user"]["extra"][POD_NAME_CLAIM][0])


def requests(installed: installation.Installation, since: int) -> Requests:
    """How often each pod asked for what: (pod, verb, resource)."""
    return collections.Counter((pod_of(event), event["verb"], event["objectRef"]["resource"])
                               for event in own_events(installed, since, "ResponseComplete"))


@pytest.mark.slow
def test_with_nothing_to_do_nothing_is_written_and_a_reserve_asks_for_nothing(
    quiet: installation.Installation
) -> None:
    peers = set(quiet.peers())
    reserve = next(pod.name for pod in quiet.pods() if pod.name not in peers)
    wait_keep_alives(quiet, peers, 1)  # what the last change made everyone look at is over
    since = quiet.position()
    wait_keep_alives(quiet, peers, 4)
    found = requests(quiet, since)
    print(f"while the peers {peers} were renewed four times each:")
    for (pod, verb, resource), count in sorted(found.items()):
        print(f"  {pod} {verb} {resource}: {count}")
    writes = {key for key in found if key[1] in installation.WRITE_VERBS}
    assert writes == {(peer, "patch", "kopfpeerings") for peer in peers}
    # It looks for a free seat once in one to three minutes; a watch is opened anew when the API server ends it.
    idle = {key: count for key, count in found.items() if key[0] == reserve}
    assert set(idle) <= {(reserve, "get", "kopfpeerings"), (reserve, "watch", "secrets"),
                         (reserve, "watch", "managernodes")}
    assert sum(idle.values()) <= 4


def wait_keep_alives(installed: installation.Installation, peers: set[str], count: int) -> None:
    since = installed.position()

    def spanned() -> bool:
        heard = instances.keep_alives(installed, since)
        return all(heard[peer] >= count for peer in peers)

    installed.cluster.wait_for(spanned, 180, f"{count} keep-alives of each peer", interval=0.5)


def test_a_server_holds_one_watch_on_one_secret_and_one_on_its_managernode(
    quiet: installation.Installation
) -> None:
    ended = {event["auditID"] for event in own_events(quiet, 0, "ResponseComplete")}
    started = own_events(quiet, 0, "ResponseStarted")
    open_watches = [event for event in started if event["verb"] == "watch" and event["auditID"] not in ended]
    nodes = {pod.name: pod.node for pod in quiet.pods()}
    active, peers = quiet.active().name, set(quiet.peers())
    for pod, node in nodes.items():
        watched = collections.Counter(event["objectRef"]["resource"] for event in open_watches if pod_of(event) == pod)
        uris = [event["requestURI"] for event in open_watches if pod_of(event) == pod]
        own = [uri for uri in uris if f"fieldSelector=metadata.name%3D{node}&" in uri]
        assert len(own) == 1 and "/managernodes?" in own[0]
        if pod == active:
            assert watched == {"secrets": 2, "managernodes": 2, "webhookcertificates": 1, "kopfpeerings": 1,
                               "validatingwebhookconfigurations": 1, "mutatingwebhookconfigurations": 1,
                               "customresourcedefinitions": 1, "apiservices": 1}
        else:
            assert watched == {"secrets": 1, "managernodes": 1, **({"kopfpeerings": 1} if pod in peers else {})}
    secrets = [event["requestURI"] for event in started + own_events(quiet, 0, "ResponseComplete")
               if event["objectRef"]["resource"] == "secrets" and event["verb"] in ("list", "watch")]
    assert secrets
    assert all(f"fieldSelector=metadata.name%3D{installation.SECRET}" in uri for uri in secrets)


def test_the_entry_of_a_pod_that_is_gone_is_cleared_by_its_successor(quiet: installation.Installation) -> None:
    gone = quiet.pods()[0]
    quiet.cluster.kubectl("delete", "pod", gone.name, "-n", quiet.namespace, "--grace-period=0", "--force")
    quiet.cluster.wait_for(
        lambda: [item["podName"] for item in quiet.instances() if item["node"] == gone.node]
        == [pod.name for pod in quiet.pods() if pod.node == gone.node and pod.uid != gone.uid] != [],
        60, "the successor's entry, and no other")
    quiet.wait_serving()


@pytest.mark.slow
def test_the_entry_of_a_pod_that_hung_through_a_rolling_restart_is_cleared(quiet: installation.Installation) -> None:
    hung = quiet.pods()[0]
    quiet.cluster.kill(hung, signal.SIGSTOP)  # at the end of its grace period it is killed with nothing done
    quiet.cluster.kubectl("rollout", "restart", "daemonset/steadyhook-manager", "-n", quiet.namespace)
    quiet.cluster.kubectl("rollout", "status", "daemonset/steadyhook-manager", "-n", quiet.namespace,
                          "--timeout=170s", timeout=180)
    quiet.cluster.wait_for(lambda: hung.uid not in {item["podUID"] for item in quiet.instances()}, 150,
                           "the entry of the hung pod to go")
    quiet.wait_serving()


def test_a_managernode_that_a_person_deletes_comes_back(quiet: installation.Installation) -> None:
    before = {item["podUID"] for item in quiet.instances()}
    quiet.cluster.kubectl("delete", "managernodes", "--all", "-n", quiet.namespace)
    quiet.wait_serving()
    assert {item["podUID"] for item in quiet.instances()} == before


def test_a_managernode_goes_with_its_node(quiet: installation.Installation) -> None:
    name = quiet.node_names[0]
    quiet.cluster.remove_node(name)
    quiet.cluster.wait_for(lambda: is_missing(quiet, name), 60, f"the end of ManagerNode {name}")
    quiet.wait_serving(3)


def test_a_managernode_made_after_its_node_was_deleted_goes_with_the_pod(quiet: installation.Installation) -> None:
    pod = quiet.pods()[0]
    node = quiet.cluster.request("GET", f"/api/v1/nodes/{pod.node}")
    try:
        quiet.cluster.request("DELETE", f"/api/v1/nodes/{pod.node}")  # an administrator, while the machine still runs
        quiet.cluster.wait_for(lambda: owner(quiet, pod.node) == ("Pod", pod.uid), 60, "a ManagerNode owned by the pod")
        quiet.cluster.kubectl("delete", "pod", pod.name, "-n", quiet.namespace, "--grace-period=0", "--force")
        quiet.cluster.wait_for(lambda: is_missing(quiet, pod.node), 60, f"the end of ManagerNode {pod.node}")
    finally:
        quiet.cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": node["metadata"]["name"]}})


def owner(installed: installation.Installation, name: str) -> tuple[str, str]:
    reference, = installed.get(f"steadyhook.io/v1alpha1 managernodes/{name}")["metadata"]["ownerReferences"]
    return reference["kind"], reference["uid"]


def is_missing(installed: installation.Installation, name: str) -> bool:
    try:
        installed.cluster.request("GET", f"{MANAGERNODES.format(installed.namespace)}/{name}")
    except api.ApiError as error:
        return error.status == 404
    return False
