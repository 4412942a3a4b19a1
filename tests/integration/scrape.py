#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes a textfile of `imvault metrics`, by loopback: each query of the dashboard is
answered, and the rules run.

  scrape.py MONITORING-FOLDER TEXTFILE ALERT...      ALERT: must fire; of its alerts without `for`, no other may

Prints what is wrong and ends with 1."""
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from metric_names import strings

EMPTY_AT_FIRST = ("[7d]", "[1d]", "[5m]", "[2m]")  # increases and changes need a past


class Page(http.server.BaseHTTPRequestHandler):
    text = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *args):
        pass


def start(folder, exporter, rules):
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as free:
        port = free.server_port
    log = open(folder / "log", "w")
    child = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                              f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    return child, f"http://127.0.0.1:{port}/api/v1/"


def ask(base, query):
    with urllib.request.urlopen(base + "query?" + urllib.parse.urlencode({"query": query}), timeout=20) as answer:
        return json.load(answer)["data"]["result"]


def wait(child, base, query):
    end = time.monotonic() + 60
    while time.monotonic() < end and child.poll() is None:
        try:
            if ask(base, query):
                return True
        except OSError:
            pass
        time.sleep(0.2)
    return False


def judge(child, base, queries, wanted):
    if not wait(child, base, "imvault_up == 1"):
        return ["Prometheus scraped nothing"]
    wrong = [f"{alert} does not fire" for alert in wanted if not wait(child, base, f'ALERTS{{alertname="{alert}", alertstate="firing"}}')]
    firing = {row["metric"]["alertname"] for row in ask(base, 'ALERTS{alertstate="firing"}')}
    wrong += [f"{alert} fires" for alert in sorted(firing - set(wanted))]
    for query in queries:
        query = query.replace("$node", ".*").replace("$__rate_interval", "5m")
        if not ask(base, query) and not any(part in query for part in EMPTY_AT_FIRST):
            wrong.append(f"nothing answers {query}")
    return wrong


def main(monitoring, textfile, *wanted):
    monitoring = Path(monitoring).resolve()
    queries = [q for q in strings(json.loads((monitoring / "grafana/imvault.json").read_text())) if not q.startswith("label_values(")]
    Page.text = Path(textfile).read_bytes()
    exporter = http.server.HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        child, base = start(Path(folder), exporter.server_port, monitoring / "prometheus/imvault.rules.yml")
        try:
            wrong = judge(child, base, queries, wanted)
        finally:
            child.terminate()
            child.wait()
        if wrong:
            wrong.append(Path(folder, "log").read_text()[-2000:])
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
