#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The alert rules and the dashboard against what `imvault metrics` really writes.

  metric_names.py MONITORING-FOLDER TEXTFILE...     with samples of every family between them

Prints what is wrong and ends with 1, and the metrics that neither uses. Writes the dashboard's queries as
recording rules into dashboard.rules.yml of the current folder, for promtool to parse."""
import json
import re
import sys
from pathlib import Path

NAME = re.compile(r"\bimvault_[a-z0-9_]+\b")


def families(text):
    declared = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
    helped = re.findall(r"(?m)^# HELP (\S+) \S", text)
    sampled = set(re.findall(r"(?m)^([a-z0-9_]+)[{ ]", text))
    return declared, helped, sampled


def strings(value):
    """Every query of the dashboard."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "definition") and isinstance(inner, str):
                yield inner
            else:
                yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def main(folder, files):
    wrong, declared, sampled, learned = [], {}, set(), False
    for file in files:
        text = Path(file).read_text()
        types, helped, samples = families(text)
        learned |= bool(re.search(r"(?m)^imvault_forecast_recoveries\{.*\} [1-9]", text))
        if sorted(types) != sorted(helped):
            wrong.append(f"{file}: HELP and TYPE are not of the same metrics")
        wrong += [f"{file}: {name} has no TYPE" for name in samples - set(types)]
        wrong += [f"{file}: {name} is a {kind}" for name, kind in types.items() if (kind == "counter") != name.endswith("_total")]
        declared |= types
        sampled |= samples
    if not learned:  # then nobody knows how far off it was
        sampled.add("imvault_forecast_error_ratio")
    wrong += [f"no file has a sample of {name}" for name in sorted(set(declared) - sampled)]
    rules = (Path(folder) / "prometheus/imvault.rules.yml").read_text()
    dashboard = json.loads((Path(folder) / "grafana/imvault.json").read_text())
    queries = list(strings(dashboard))
    used = {"rules": set(NAME.findall(rules)), "dashboard": set(NAME.findall(" ".join(queries)))}
    for where, names in used.items():
        if not names:
            wrong.append(f"no metric in the {where}")
        wrong += [f"the {where} use {name}, which is never written" for name in sorted(names - set(declared))]
    sources = [v["name"] for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    if "datasource" not in sources or '"uid": "${datasource}"' not in json.dumps(dashboard):
        wrong.append("the dashboard has no variable for its datasource")
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) != len(ids):
        wrong.append("two panels have one id")
    with open("dashboard.rules.yml", "w") as out:
        print("groups: [{name: dashboard, rules: [", file=out)
        for i, query in enumerate(queries):
            if query.startswith("label_values("):
                continue
            query = query.replace("$node", ".*").replace("$__rate_interval", "5m")
            print(f"  {{record: 'query:{i}', expr: {json.dumps(query)}}},", file=out)
        print("]}]", file=out)
    for line in wrong:
        print(line)
    unused = sorted(set(declared) - used["rules"] - used["dashboard"])
    print(f"{len(declared)} metrics; in neither rules nor dashboard: {' '.join(unused)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
