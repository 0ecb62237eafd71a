"""Alerts and dashboard: they parse, and name metrics that exist; alerts come."""

import json
import re
from pathlib import Path

import pytest
import yaml
from test_metrics import be_busy, promtool, scrape, serve  # noqa: F401

pytestmark = pytest.mark.cpu  # Names of devices are labels.
DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus/alerts.yaml"
DASHBOARD = DEPLOY / "grafana/backboned.json"
SERIES = re.compile(r"(backboned_\w+)(?:\{([^}]*)\})?")
GIVEN = {"instance", "job"}  # Labels that Prometheus adds.


def expressions_of_alerts():
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def expressions_of_dashboard():
    """Give the expressions of the panels, as Grafana would send them."""
    given = {"$__rate_interval": "2m", "$instance": ".*"}
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"]
            for name, value in given.items():
                text = text.replace(name, value)
            found[f"{panel['title']}: {target['refId']}"] = text
    return found


def test_alerts_are_those_that_are_expected():
    promtool("test", "rules", DEPLOY / "prometheus/alerts_test.yaml")
    tested = (DEPLOY / "prometheus/alerts_test.yaml").read_text()
    for name in expressions_of_alerts():
        # Each alerts in one test at least.
        assert re.search(rf"alertname: {name}\n +exp_alerts:", tested), name


def test_the_dashboards_expressions_parse(tmp_path):
    rules = [
        {"record": f"panel{number}", "expr": expression}
        for number, expression in enumerate(expressions_of_dashboard().values())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)


@pytest.mark.parametrize(
    "expressions", [expressions_of_alerts, expressions_of_dashboard]
)
def test_a_busy_server_has_each_metric_that_is_asked_for(serve, expressions):  # noqa: F811
    server, admin, _ = serve()
    be_busy(server)
    series = {}
    for name in scrape(admin):
        metric, labels = SERIES.fullmatch(name).groups()
        series.setdefault(metric, set()).update(re.findall(r'(\w+)="', labels or ""))
    asked = expressions()
    assert len(asked) >= 10
    for where, expression in asked.items():
        for metric, labels in SERIES.findall(expression):
            assert metric in series, f"{where}: {metric}"
            named = {*re.findall(r"(\w+)=", labels)} - GIVEN
            assert named <= series[metric], f"{where}: {metric}{{{labels}}}"
        for labels in re.findall(r"by \(([\w, ]+)\)", expression):
            known = set().union(*(series[m] for m, _ in SERIES.findall(expression)))
            assert {*re.findall(r"\w+", labels)} - GIVEN <= known, where


def test_panels_lie_beside_each_other():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (column, row)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells) and max(cells)[0] == 23
    for panel in panels:
        assert panel["type"] == "row" or panel["targets"]


def test_the_page_lists_the_alerts():
    page = (DEPLOY.parent / "docs/metrics.md").read_text()
    listed = re.findall(r"^\| `(Backboned\w+)` \|", page, re.M)
    assert listed == list(expressions_of_alerts())
