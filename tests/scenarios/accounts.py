"""The API server as an account sees it: requests with a token, as somebody who has stolen it would send them."""
import dataclasses
import json
import ssl
import urllib.error
import urllib.request
from typing import Any, Self

from devcluster import facade

JsonObject = dict[str, Any]

JSON = "application/json"
MERGE = "application/merge-patch+json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An account's requests to the API server; the answer is the HTTP status and the text of it."""

    server: str
    ca_pem: str
    token: str

    @classmethod
    def of_token(cls, cluster: facade.DevCluster, token: str) -> Self:
        return cls(server=cluster.server, ca_pem=cluster.ca_pem.decode(), token=token)

    @classmethod
    def of_pod(cls, cluster: facade.DevCluster, pod: facade.PodProcess) -> Self:
        """With the very token that the kubelet gave to a running pod."""
        return cls.of_token(cluster, json.loads(pod.kubeconfig.read_text())["users"][0]["user"]["token"])

    @classmethod
    def of_account(
        cls, cluster: facade.DevCluster, namespace: str, name: str, *, pod: JsonObject | None = None
    ) -> Self:
        """With a new token of a ServiceAccount, bound to the ``pod`` (its manifest) or to nothing."""
        reference = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"],
                     "uid": pod["metadata"]["uid"]} if pod is not None else None
        answer = cluster.request(
            "POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
             "spec": {"boundObjectRef": reference} if reference else {}})
        return cls.of_token(cluster, answer["status"]["token"])

    def ask(self, method: str, path: str, body: object = None, content_type: str = JSON) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data=data, headers=headers, method=method)
        context = ssl.create_default_context(cadata=self.ca_pem)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(request, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, method: str, path: str, body: object = None, content_type: str = JSON) -> int:
        return self.ask(method, path, body, content_type)[0]
