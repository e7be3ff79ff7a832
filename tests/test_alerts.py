"""The alerting rules speak of metrics, labels and values that exist; more than that only Prometheus can tell."""
import pathlib
import re
from typing import Any

import prometheus_client
import pytest
import yaml

from steadyhook import metrics

FOLDER = pathlib.Path(__file__).parents[1] / "manifests/monitoring"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
TARGET = {"job", "instance", "node"}  # what Prometheus and scrape.yaml add
FUNCTIONS = {"sum", "rate", "increase", "absent", "abs", "time"}
WORDS = {"by", "or", "and"}
VALUES = {"type": set(metrics.CONDITIONS), "phase": set(metrics.PHASES), "port": {"webhook", "health"},
          "reason": {"full", "slow"}}
TOKEN = re.compile(
    r"(?P<string>\"[^\"]*\")|(?P<name>[a-zA-Z_]\w*)|(?P<duration>\[\d+[smhd]\])|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<operator>==|=~|<|>|=|[-+*/(){},])|(?P<space>\s+)|(?P<unknown>.)")


@pytest.fixture(scope="module", autouse=True)
def labels() -> dict[str, set[str]]:
    """The labels of each series that the program can have."""
    metrics.set_certified(lambda: True)
    try:
        found = {}
        for family in prometheus_client.REGISTRY.collect():
            found[family.name + ("_total" if family.type == "counter" else "")] = {
                name for sample in family.samples for name in sample.labels}
        for metric in vars(metrics).values():
            if isinstance(metric, prometheus_client.Counter | prometheus_client.Gauge):
                name = metric.describe()[0].name + ("_total" if isinstance(metric, prometheus_client.Counter) else "")
                found[name] = set(metric._labelnames)
        return {name: names for name, names in found.items() if name.startswith("steadyhook_")}
    finally:
        metrics.set_certified(None)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_expression_has_only_known_metrics_labels_and_functions(
    rule: dict[str, Any], labels: dict[str, set[str]],
) -> None:
    tokens = [(match.lastgroup, match[0]) for match in TOKEN.finditer(rule["expr"]) if match.lastgroup != "space"]
    assert not [text for kind, text in tokens if kind == "unknown"]
    named = [text for kind, text in tokens if kind == "name" and text.startswith("steadyhook_")]
    assert named
    known = {name for metric in named for name in labels[metric]}
    closing = {")": "(", "}": "{"}
    opened: list[str] = []
    for (kind, text), (_, following) in zip(tokens, [*tokens[1:], ("", "")], strict=True):
        if text in "({" and kind == "operator":
            opened.append(text)
        elif text in closing:
            assert opened.pop() == closing[text]
        elif kind == "name" and text not in named:
            is_label = opened[-1:] == ["{"] or (following not in ("(", "by") and text not in WORDS)
            assert text in (known | TARGET if is_label else FUNCTIONS | WORDS), text
    assert not opened
    for label, value in re.findall(r"(\w+)=\"([^\"]*)\"", rule["expr"]):
        assert value in VALUES[label]
    assert len(re.findall(r"==|<|>|absent", rule["expr"])) >= 1, "else it would always hold"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do_with_labels_that_its_metrics_have(
    rule: dict[str, Any], labels: dict[str, set[str]],
) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s"))
    assert rule["annotations"].keys() == {"summary", "description"}
    kept = set(re.findall(r"by \(([^)]*)\)", rule["expr"])[0].split(", ")) if "by (" in rule["expr"] else None
    metric = re.findall(r"steadyhook_\w+", rule["expr"])[0]
    for text in rule["annotations"].values():
        assert text.count("{{") == text.count("}}")
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in (labels[metric] | TARGET if kept is None else kept)


def test_what_a_person_has_to_know_of_has_an_alert() -> None:
    assert {rule["alert"] for rule in RULES} >= {
        "SteadyhookNobodyIssues", "SteadyhookCertificateExpiresSoon", "SteadyhookCAExpiresSoon", "SteadyhookDegraded",
        "SteadyhookServerNotServing", "SteadyhookRestarts"}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_the_pods_are_scraped_by_the_name_of_their_port_and_keep_the_labels_of_the_certificates() -> None:
    (job,) = yaml.safe_load((FOLDER / "scrape.yaml").read_text())
    assert job["honor_labels"] is True
    assert job["relabel_configs"][0]["regex"] == "steadyhook;health"
    assert {item.get("target_label") for item in job["relabel_configs"]} - {None} <= TARGET
    for path in FOLDER.parent.glob("base/*/*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            template = (document.get("spec") or {}).get("template") if document else None
            if isinstance(template, dict):
                ports = [port["name"] for item in template["spec"]["containers"] for port in item["ports"]]
                assert "health" in ports, path
