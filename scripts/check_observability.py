"""What Bellwether exports, what its alerts and its dashboard ask for, and what its pages explain must be the same.

Called by scripts/check-observability.sh; needs nothing but Python. The pages' table docs/metrics.md is the list in the
middle: it has every metric of src/metrics.rs with its type and labels, and the alerts that use it. Rules, dashboard and runbook pages
are held against it. With a scrape in place of the source the table is held against what a real sidecar says.
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

RULES = "charts/bellwether/rules/bellwether.yaml"
RULE_TESTS = "charts/bellwether/rules/tests"
DASHBOARD = "charts/bellwether/dashboards/bellwether.json"
METRICS_PAGE = "docs/metrics.md"
RUNBOOKS = "docs/runbooks"
SOURCE = "src"

# What Prometheus adds to every series, or makes itself.
TARGET_LABELS = {"namespace", "pod", "container", "job", "instance"}
PROMETHEUS_OWN = {"ALERTS": {"alertname", "alertstate", "severity", "election"} | TARGET_LABELS}
# Every series has it: the registry adds it.
EVERYWHERE = {"election"}

KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "inf", "nan"}
# What the chart replaces to narrow the rules to one release: each selector has it.
SCOPE = 'election!=""'


class Metric:
    def __init__(self, name, kind, labels, alerts=()):
        self.name, self.kind, self.labels, self.alerts = name, kind, set(labels), set(alerts)

    def series(self):
        """The names its series have, with the labels of each."""
        labels = self.labels | EVERYWHERE | TARGET_LABELS
        if self.kind != "histogram":
            return {self.name: labels}
        return {f"{self.name}_bucket": labels | {"le"}, f"{self.name}_sum": labels, f"{self.name}_count": labels}


class Faults(list):
    def add(self, where, what):
        self.append(f"{where}: {what}")


# --- what there is ---------------------------------------------------------------------------------------------------


def read_page(root, faults):
    """The tables of docs/metrics.md: | `name` | type | labels | meaning | alerts |"""
    metrics = {}
    for line in (root / METRICS_PAGE).read_text().splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 5:
            faults.add(METRICS_PAGE, f"a row has {len(cells)} cells, not 5: {line}")
            continue
        name, kind, labels, meaning, alerts = cells
        name = name.strip("`")
        if name in metrics:
            faults.add(METRICS_PAGE, f"{name} has two rows")
        if kind not in ("counter", "gauge", "histogram"):
            faults.add(METRICS_PAGE, f"{name}: unknown type {kind!r}")
        if not meaning:
            faults.add(METRICS_PAGE, f"{name}: no meaning")
        metrics[name] = Metric(name, kind, re.findall(r"`([a-z_]+)`", labels), re.findall(r"\[(\w+)\]", alerts))
    if not metrics:
        faults.add(METRICS_PAGE, "no row of a metric was found")
    return metrics


def source_text(root):
    """The Rust source without comments and without unit tests."""
    parts = []
    for path in sorted((root / SOURCE).rglob("*.rs")):
        text = path.read_text().split("#[cfg(test)]\nmod ")[0]
        parts.append(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def check_page_against_source(page, source, faults):
    there = set(re.findall(r'"((?:bellwether|leader_election)_[a-z0-9_]+)"', source))
    histograms = set(re.findall(r'histogram\(\s*"([a-z0-9_]+)"', source))
    for name in sorted(there - page.keys()):
        faults.add(METRICS_PAGE, f"{name} is in the source and has no row")
    for name, metric in page.items():
        if name.startswith("process_"):
            if "ProcessCollector" not in source:
                faults.add(METRICS_PAGE, f"{name} has a row, and the source has no ProcessCollector")
        elif name not in there:
            faults.add(METRICS_PAGE, f"{name} has a row and is not in the source")
        elif (metric.kind == "histogram") != (name in histograms):
            faults.add(METRICS_PAGE, f"{name} is {'a' if name in histograms else 'no'} histogram in the source")
    # Which one is seen in a scrape only.
    if EVERYWHERE and "Registry::new_custom(" not in source:
        faults.add(SOURCE, f"the registry adds no label to every series, and the alerts rely on {sorted(EVERYWHERE)}")


def check_page_against_scrape(page, scrape, faults):
    """Every metric of a scrape has a row with its type and its labels, and every row a metric."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", scrape, flags=re.MULTILINE))
    labels = {name: set() for name in kinds}
    for name, inside in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", scrape, flags=re.MULTILINE):
        name = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        labels[name] |= set(re.findall(r'(\w+)="', inside)) - {"le"}
    for name in sorted(kinds.keys() - page.keys()):
        faults.add("scrape", f"{name} has no row in {METRICS_PAGE}")
    for name, metric in page.items():
        if name not in kinds:
            faults.add(METRICS_PAGE, f"{name} has a row and is not in the scrape")
        elif kinds[name] != metric.kind:
            faults.add(METRICS_PAGE, f"{name} is a {kinds[name]} in the scrape, not a {metric.kind}")
        elif labels[name] and labels[name] != metric.labels | EVERYWHERE:
            want = sorted(labels[name] - EVERYWHERE) if EVERYWHERE <= labels[name] else f"{sorted(labels[name])}: no {EVERYWHERE}"
            faults.add(METRICS_PAGE, f"{name} has the labels {want} in the scrape, not {sorted(metric.labels)}")


# --- what is asked for -----------------------------------------------------------------------------------------------


def selectors(expr):
    """The metrics a PromQL expression names, each with its matchers as (label, operator, value)."""
    found, grouped = [], set()
    strings = []

    def keep(match):
        strings.append(match.group(0)[1:-1])
        return f'"{len(strings) - 1}"'

    text = re.sub(r'"(?:[^"\\]|\\.)*"', keep, expr)
    text = re.sub(r"\[[^\]]*\]", " ", text)

    def group(match):
        grouped.update(re.findall(r"\w+", match.group(2)))
        return " "

    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", group, text)
    for match in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\}|\()?", text):
        name, rest = match.group(1), match.group(2) or ""
        before = text[: match.start()]
        if rest == "(" or name.lower() in KEYWORDS or before.count("{") != before.count("}") or re.search(r"[\d.\"]$", before):
            continue
        matchers = [(label, op, strings[int(i)]) for label, op, i in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(\d+)"', rest)]
        found.append((name, matchers))
    return found, grouped


def check_expr(where, expr, series, values, faults):
    """Names, labels and values of one expression. Returns the names it uses."""
    found, grouped = selectors(expr)
    if not found:
        faults.add(where, f"names no metric: {expr}")
    known = set()
    for name, matchers in found:
        labels = series.get(name)
        if labels is None:
            faults.add(where, f"{name} is not a metric of the sidecar")
            continue
        known |= labels
        for label, _, value in matchers:
            if label not in labels:
                faults.add(where, f"{name} has no label {label}")
            elif label not in TARGET_LABELS | EVERYWHERE | {"le", "alertname", "alertstate"}:
                for each in value.split("|"):
                    if f'"{each}"' not in values:
                        faults.add(where, f'{name}{{{label}}}: "{each}" is nowhere in the source')
    for label in grouped - known - {"epoch"}:
        faults.add(where, f"groups by {label}, which none of its metrics has")
    return found


class Alert:
    def __init__(self, name, text):
        self.name, self.text = name, text
        block = re.search(r"^        expr: \|\n((?:          .*\n)+)", text, flags=re.MULTILINE)
        self.expr = block.group(1) if block else ""
        self.labels = dict(re.findall(r"^          (severity): (\w+)$", text, flags=re.MULTILINE))
        self.annotations = set(re.findall(r"^          (summary|description|runbook_url):", text, flags=re.MULTILINE))


def read_alerts(root, faults):
    text = (root / RULES).read_text()
    parts = re.split(r"^      - alert: (\w+)\n", text, flags=re.MULTILINE)
    alerts = [Alert(name, body) for name, body in zip(parts[1::2], parts[2::2])]
    if len(alerts) != len(re.findall(r"^\s*-\s*alert:", text, flags=re.MULTILINE)) or not alerts:
        faults.add(RULES, "not every alert could be read: keep to the layout of the others")
    for alert in alerts:
        if not alert.expr:
            faults.add(f"{RULES}, {alert.name}", "no `expr: |` could be read: keep to the layout of the others")
    return alerts


def check_rules(root, page, series, source, faults):
    alerts = read_alerts(root, faults)
    used = {name: set() for name in page}
    tests = "".join(path.read_text() for path in sorted((root / RULE_TESTS).glob("*.yaml")))
    for alert in alerts:
        where = f"{RULES}, {alert.name}"
        for name, matchers in check_expr(where, alert.expr, series, source, faults):
            base = name if name in page else re.sub(r"_(bucket|sum|count)$", "", name)
            used.get(base, set()).add(alert.name)
            if name in series and ("election", "!=", "") not in matchers:
                faults.add(where, f"{name} lacks the matcher {SCOPE}, by which the chart narrows it to a release")
        for name in re.findall(r"\b((?:bellwether|leader_election|process)_\w+)", alert.text):
            if name not in series:
                faults.add(where, f"{name} is not a metric of the sidecar")
        if alert.labels.get("severity") not in ("critical", "warning"):
            faults.add(where, "severity is neither critical nor warning")
        for annotation in {"summary", "description", "runbook_url"} - alert.annotations:
            faults.add(where, f"no {annotation}")
        if f"          runbook_url: {RUNBOOKS}/{alert.name}.md\n" not in alert.text:
            faults.add(where, f"runbook_url is not {RUNBOOKS}/{alert.name}.md")
        if f"alertname: {alert.name}\n" not in tests:
            faults.add(where, f"no test in {RULE_TESTS} sees it fire")
    for name, metric in page.items():
        if metric.alerts != used[name]:
            faults.add(METRICS_PAGE, f"{name}: alerts are {sorted(metric.alerts)}, and those that use it {sorted(used[name])}")
    return alerts


def check_runbooks(root, alerts, faults):
    pages = {path.stem: path for path in (root / RUNBOOKS).glob("*.md")}
    index = pages.pop("README", None)
    names = {alert.name for alert in alerts}
    for name in sorted(names - pages.keys()):
        faults.add(RUNBOOKS, f"{name} has no page")
    for name in sorted(pages.keys() - names):
        faults.add(RUNBOOKS, f"{name}.md has no alert")
    for name in sorted(names & pages.keys()):
        text = pages[name].read_text()
        if not text.startswith(f"# {name}\n"):
            faults.add(f"{RUNBOOKS}/{name}.md", f"its title is not {name}")
        for heading in ("What it means", "What users notice", "What is safe, what is not", "Find out", "Mend", "Prevent"):
            if f"\n## {heading}\n" not in text:
                faults.add(f"{RUNBOOKS}/{name}.md", f"no section {heading!r}")
    if index is None:
        faults.add(RUNBOOKS, "no README.md")
    else:
        listed = re.findall(r"\]\((\w+)\.md\)", index.read_text())
        if sorted(listed) != sorted(names):
            faults.add(f"{RUNBOOKS}/README.md", f"does not list each alert once: {sorted(set(listed) ^ names)}")


def check_pages_name_metrics(root, series, faults):
    """What the runbooks and the other pages call a metric is one."""
    for path in [*sorted((root / RUNBOOKS).glob("*.md")), *sorted((root / "docs").glob("*.md"))]:
        for name in sorted(set(re.findall(r"\b((?:bellwether|leader_election)_[a-z_]+[a-z])\b", path.read_text()))):
            if name not in series and f"{name}_count" not in series:
                faults.add(str(path.relative_to(root)), f"{name} is not a metric of the sidecar")


def data_sources(part):
    """The data sources that a part of the dashboard names."""
    if isinstance(part, dict):
        named = part.get("datasource")
        if named is not None:
            yield named.get("uid", "?") if isinstance(named, dict) else named
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from data_sources(each)


def check_dashboard(root, series, source, faults):
    try:
        dashboard = json.loads((root / DASHBOARD).read_text())
    except json.JSONDecodeError as error:
        faults.add(DASHBOARD, str(error))
        return
    panels = [each for panel in dashboard["panels"] for each in [panel, *panel.get("panels", [])]]
    ids = [panel["id"] for panel in panels]
    for each in sorted({each for each in ids if ids.count(each) > 1}):
        faults.add(DASHBOARD, f"two panels have the id {each}")
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    if variables != ["datasource", "namespace", "election"]:
        faults.add(DASHBOARD, f"the variables are {variables}")
    for uid in sorted(set(data_sources(dashboard)) - {"${datasource}", "-- Grafana --"}):
        faults.add(DASHBOARD, f"bound to a data source: {uid}")
    exprs = [(DASHBOARD + ", annotation " + each["name"], each["expr"]) for each in dashboard["annotations"]["list"] if "expr" in each]
    for panel in panels:
        where = f"{DASHBOARD}, {panel['title']}"
        if panel["type"] == "row":
            continue
        if not panel.get("description"):
            faults.add(where, "no description")
        for target in panel.get("targets") or [{"expr": ""}]:
            exprs.append((where, target["expr"]))
    for where, expr in exprs:
        for name, matchers in check_expr(where, expr, series, source, faults):
            for label in ("namespace", "election"):
                if (label, "=", f"${label}") not in matchers:
                    faults.add(where, f"{name} is not narrowed to the chosen {label}")
    for variable in dashboard["templating"]["list"]:
        for name, label in re.findall(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable.get("definition", "")):
            if label not in series.get(name, ()):
                faults.add(f"{DASHBOARD}, ${variable['name']}", f"{name} has no label {label}")


def check(root, scrape=None):
    faults = Faults()
    page = read_page(root, faults)
    source = source_text(root)
    if scrape is None:
        check_page_against_source(page, source, faults)
    else:
        check_page_against_scrape(page, scrape, faults)
    series = dict(PROMETHEUS_OWN)
    for metric in page.values():
        series |= metric.series()
    alerts = check_rules(root, page, series, source, faults)
    check_runbooks(root, alerts, faults)
    check_pages_name_metrics(root, series, faults)
    check_dashboard(root, series, source, faults)
    return faults


# --- the self-test ---------------------------------------------------------------------------------------------------


def replace(path, old, new):
    def spoil(root):
        text = (root / path).read_text()
        assert old in text, f"the self-test is out of date: {path} has no {old!r}"
        (root / path).write_text(text.replace(old, new, 1))

    return spoil


def remove(path):
    return lambda root: (root / path).unlink()


def create(path, text):
    return lambda root: (root / path).write_text(text)


# What is spoiled, and what must be said of it.
SPOILED = [
    (replace(RULES, "bellwether_jeopardy_episodes_total{", "bellwether_jeopardies_total{"), "bellwether_jeopardies_total is not a metric"),
    (replace(RULES, 'bellwether_leading{election!=""}) == 0\n', 'kube_pod_info{election!=""}) == 0\n'), "kube_pod_info is not a metric"),
    (replace(RULES, '{to="leading",', '{into="leading",'), "bellwether_transitions_total has no label into"),
    (replace(RULES, 'reason!~"resumed|', 'reason!~"resumes|'), '"resumes" is nowhere in the source'),
    (replace(RULES, "max by (namespace, election, code)", "max by (namespace, election, kind)"), "groups by kind"),
    (replace(RULES, '{election!=""}', "{}"), "lacks the matcher"),
    (replace(RULES, '"max(bellwether_term{', '"max(bellwether_terms{'), "bellwether_terms is not a metric"),
    (replace(RULES, "severity: critical", "severity: page"), "severity is neither"),
    (replace(RULES, "          summary: ", "          title: "), "no summary"),
    (replace(RULES, "runbooks/BellwetherNoLeader.md", "runbooks/NoLeader.md"), "runbook_url is not"),
    (replace(RULES, "        expr: |\n", "        expr: >\n"), "keep to the layout"),
    (replace(RULES, "- alert: BellwetherJeopardy\n", "- alert: BellwetherInJeopardy\n"), "BellwetherInJeopardy has no page"),
    (remove(f"{RULE_TESTS}/jeopardy.yaml"), "no test in"),
    (remove(f"{RUNBOOKS}/BellwetherTwoLeaders.md"), "BellwetherTwoLeaders has no page"),
    (create(f"{RUNBOOKS}/BellwetherTired.md", "# BellwetherTired\n"), "BellwetherTired.md has no alert"),
    (replace(f"{RUNBOOKS}/BellwetherNoLeader.md", "\n## Mend\n", "\n## Cure\n"), "no section 'Mend'"),
    (replace(f"{RUNBOOKS}/BellwetherNoLeader.md", "# BellwetherNoLeader\n", "# No leader\n"), "its title is not"),
    (replace(f"{RUNBOOKS}/BellwetherNoLeader.md", "bellwether_not_leading", "bellwether_why_not"), "bellwether_why_not is not a metric"),
    (replace(f"{RUNBOOKS}/README.md", "(BellwetherNoLeader.md)", "(BellwetherTwoLeaders.md)"), "does not list each alert once"),
    (replace(METRICS_PAGE, "| `bellwether_epoch` |", "| `bellwether_epochs` |"), "bellwether_epoch is in the source and has no row"),
    (replace(METRICS_PAGE, "| `bellwether_epoch` |", "| `bellwether_epochs` |"), "bellwether_epochs has a row and is not in the source"),
    (replace(METRICS_PAGE, "| `bellwether_failover_seconds` | histogram", "| `bellwether_failover_seconds` | gauge"),
     "is a histogram in the source"),
    (replace(METRICS_PAGE, "[BellwetherJeopardy]", "[BellwetherNoLeader]"), "and those that use it ['BellwetherJeopardy']"),
    (replace(f"{SOURCE}/metrics.rs", "Registry::new_custom(None, Some(everywhere))?", "Registry::new()"), "adds no label to every series"),
    (replace(f"{SOURCE}/metrics.rs", '"bellwether_claims_total"', '"bellwether_bids_total"'), "bellwether_bids_total is in the source"),
    (replace(DASHBOARD, "bellwether_claims_total{", "bellwether_bids_total{"), "bellwether_bids_total is not a metric"),
    (replace(DASHBOARD, '{namespace=\\"$namespace\\",election=\\"$election\\"}', '{namespace=\\"$namespace\\"}'),
     "not narrowed to the chosen election"),
    (replace(DASHBOARD, "${datasource}", "prometheus-1"), "bound to a data source"),
    (replace(DASHBOARD, '"id": 2,', '"id": 1,'), "two panels have the id 1"),
    (replace(DASHBOARD, "sum by (result)", "sum by (outcome)"), "groups by outcome"),
    (replace(DASHBOARD, "label_values(bellwether_leading, namespace)", "label_values(bellwether_leads, namespace)"),
     "bellwether_leads has no label"),
    (replace(DASHBOARD, '"title": "Bellwether"', '"title" "Bellwether"'), "delimiter"),
]

SCRAPE = """\
# TYPE bellwether_leading gauge
bellwether_leading{election="web"} 1
# TYPE bellwether_claims_total counter
bellwether_claims_total{outcome="won",election="web"} 1
# TYPE bellwether_epoch counter
bellwether_epoch{election="web"} 0
# TYPE bellwether_state gauge
bellwether_state{state="leading"} 1
# TYPE bellwether_bids_total counter
bellwether_bids_total{election="web"} 1
"""
SCRAPE_FAULTS = [
    "bellwether_bids_total has no row",
    "bellwether_term has a row and is not in the scrape",
    "bellwether_claims_total has the labels ['outcome']",
    "bellwether_epoch is a counter in the scrape, not a gauge",
    "bellwether_state has the labels ['state']: no {'election'}",
]


def copy(root, to):
    for folder in ("charts/bellwether/rules", "charts/bellwether/dashboards", "docs", SOURCE):
        shutil.copytree(root / folder, to / folder)


def self_test(root):
    """Spoils one thing at a time in a copy, and sees that it is said. Returns what was missed."""
    missed = []
    before = set(check(root))
    if before:
        return ["there are faults already: mend them first", *sorted(before)]
    for number, (spoil, said) in enumerate(SPOILED):
        with tempfile.TemporaryDirectory() as folder:
            copy(root, Path(folder))
            spoil(Path(folder))
            news = check(Path(folder))
            if not any(said in each for each in news):
                missed.append(f"spoiled {number}: nothing said of {said!r}, but {news}")
    faults = check(root, SCRAPE)
    missed += [f"scrape: nothing said of {said!r}" for said in SCRAPE_FAULTS if not any(said in each for each in faults)]
    return missed


def main(arguments):
    root = Path(__file__).resolve().parent.parent
    if arguments == ["--self-test"]:
        faults = self_test(root)
        done = f"{len(SPOILED) + len(SCRAPE_FAULTS)} faults made, all found"
    elif not arguments:
        faults, done = check(root), ""
    elif len(arguments) == 2 and arguments[0] == "--scrape":
        scrape = sys.stdin.read() if arguments[1] == "-" else Path(arguments[1]).read_text()
        faults, done = check(root, scrape), ""
    else:
        sys.exit("usage: scripts/check-observability.sh [--self-test | --scrape FILE|-]")
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)
    if done:
        print(done)


if __name__ == "__main__":
    main(sys.argv[1:])
