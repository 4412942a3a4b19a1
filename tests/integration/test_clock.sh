#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A snapshot taken while the clock ran ahead has no place in the log; then the clock is right again. What is written
# afterwards must not be taken for older than that snapshot.
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
top=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-clock.XXXXXX")
mkdir "$top/data"
db=$top/data/a.sqlite
set_clock() { /usr/bin/python3 -c 'import struct, sys; sys.stdout.buffer.write(struct.pack("<q", int(sys.argv[1])))' "$1" >"$top/clock"; }
# A sanitizer wants to be loaded first.
imvault() { ASAN_OPTIONS=${ASAN_OPTIONS:-}:verify_asan_link_order=0 LD_PRELOAD="$IMVAULT_SET_CLOCK" IMVAULT_TEST_CLOCK="$top/clock" "$IMVAULT" "$@"; }
fail() {
	echo "FAILED: $1"
	exit 1
}
set_clock 0
sqlite3 "$db" "PRAGMA journal_mode = wal; CREATE TABLE t (a); INSERT INTO t VALUES (0)" >/dev/null
keep_open "$db"
trap 'kill $server; rm -rf "$top"' EXIT
imvault init --vault "$top/vault" --restore-key "$top/restore.key" --node-key "$top/node.key" --node im-01 >/dev/null 2>&1 </dev/null
cat >"$top/conf" <<END
[node]
name = im-01
state = $top/state
[vault]
url = $top/vault
key = $top/node.key
[store archive]
type = sqlite
path = $db
END
snapshots() { find "$top/vault/snapshots" -type f | wc -l; }
imvault -c "$top/conf" --quiet follow --once || fail "the first round ended with $?"
set_clock 86400000
sqlite3 "$db" "INSERT INTO t VALUES (1)"
imvault -c "$top/conf" --quiet backup || fail "backup ended with $?"
set_clock 0
sqlite3 "$db" "INSERT INTO t VALUES (2)"
before=$(snapshots)
imvault -c "$top/conf" --quiet follow --once 2>"$top/said" || fail "the round after it ended with $?: $(<"$top/said")"
grep -q "the clock was set back" "$top/said" || fail "nothing was said of the clock"
[ "$(snapshots)" = $((before + 1)) ] || fail "no other snapshot was taken"
sqlite3 "$db" "INSERT INTO t VALUES (3)"
imvault -c "$top/conf" --quiet follow --once 2>"$top/said" || fail "the last round ended with $?"
[ -s "$top/said" ] && fail "it was said again: $(<"$top/said")"
[ "$(snapshots)" = $((before + 1)) ] || fail "yet another snapshot was taken"
imvault restore --vault "$top/vault" --key "$top/restore.key" --to "$top/out" >/dev/null || fail "restore ended with $?"
rows=$(sqlite3 "$top/out$db" "SELECT group_concat(a, ' ') FROM t")
[ "$rows" = "0 1 2 3" ] || fail "restored: $rows"

# The log ran ahead with the clock, then the local state was lost with it: a snapshot without a place in the log, taken
# after another epoch had begun, is later than all that, and nothing is reported as missing.
set_clock 86400000
sqlite3 "$db" "INSERT INTO t VALUES (4)"
imvault -c "$top/conf" --quiet follow --once || fail "the round ahead of time ended with $?"
set_clock 0
rm -r "$top/state"
status=0
imvault -c "$top/conf" --quiet follow --once 2>/dev/null || status=$?
[ "$status" = 3 ] || fail "a round without local state ended with $status, not with a gap"
sqlite3 "$db" "INSERT INTO t VALUES (5)"
imvault -c "$top/conf" --quiet backup || fail "backup ended with $?"
imvault restore --vault "$top/vault" --key "$top/restore.key" --to "$top/later" >"$top/said" 2>&1 || fail "restore ended with $?: $(<"$top/said")"
rows=$(sqlite3 "$top/later$db" "SELECT group_concat(a, ' ') FROM t")
[ "$rows" = "0 1 2 3 4 5" ] || fail "restored after the loss: $rows"
