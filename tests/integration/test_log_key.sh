#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A node key that is rotated in the middle of an epoch: what the old one signed of the log stays restorable, and the
# new one goes on in the same epoch.
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
top=$(mktemp -d /tmp/imvault-log-key-XXXXXX)
mkdir "$top/data"
db=$top/data/a.sqlite
add_row "$db" 0
keep_open "$db"
trap 'kill $server; rm -rf "$top"' EXIT
"$IMVAULT" init --vault "$top/vault" --restore-key "$top/restore.key" --node-key "$top/old.key" --node im-01 >/dev/null 2>&1 </dev/null
cat >"$top/conf" <<END
[node]
name = im-01
state = $top/state
[vault]
url = $top/vault
key = $top/old.key
[store archive]
type = sqlite
path = $db
END
follow() { "$IMVAULT" -c "$top/conf" --quiet follow --once; }
fail() {
	echo "FAILED: $1"
	exit 1
}
for i in 1 2 3; do
	add_row "$db" "$i"
	follow || fail "follow ended with $?"
done
key=(--vault "$top/vault" --key "$top/restore.key")
old=$("$IMVAULT" key list "${key[@]}" --json | /usr/bin/python3 -c 'import json, sys; print([k["id"] for k in json.load(sys.stdin)["keys"] if k["role"] == "node"][0])')
"$IMVAULT" key rotate "$old" "${key[@]}" --out "$top/new.key" >/dev/null
sed -i 's/old\.key/new.key/' "$top/conf"
for i in 4 5; do
	add_row "$db" "$i"
	follow || fail "follow with the new key ended with $?"
done
[ "$(find "$top/vault/logs" -mindepth 3 -maxdepth 3 | wc -l)" = 1 ] || fail "the new key began another epoch"
"$IMVAULT" restore "${key[@]}" --to "$top/out" >/dev/null || fail "restore ended with $?"
rows=$(sqlite3 "$top/out$db" "SELECT group_concat(a, ' ') FROM t")
[ "$rows" = "0 1 2 3 4 5" ] || fail "restored: $rows"
