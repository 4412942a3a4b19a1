# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the drivers of the program share. Sourced: imvault and the folder of out and err are the driver's.

failed=0 count=0

# is EXPECTED ACTUAL WHAT
is() {
	local f
	count=$((count + 1))
	[ "$1" = "$2" ] && return
	failed=$((failed + 1))
	echo "FAILED: $3: expected \"$1\", got \"$2\""
	for f in out err log; do
		[ ! -s $f ] || sed "s/^/  $f: /" $f | head -20
	done
}
# run CODE ARGUMENTS...: no terminal; output in out and err.
run() {
	local expected=$1 code=0
	shift
	"$imvault" "$@" </dev/null >out 2>err || code=$?
	is "$expected" "$code" "exit of imvault $*"
}
says() { is yes "$(grep -qsF -- "$1" out err log && echo yes || echo no)" "the words \"$1\""; }
# json PYTHON-EXPRESSION over j, from out
json() { /usr/bin/python3 -c "import json, sys; j = json.load(open('out')); print($1)" 2>&1; }
# Waits up to 30 s for a command to succeed.
until_ok() {
	for _ in {1..300}; do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	is done waiting "$*"
}
# add_row DATABASE VALUE: one commit in WAL mode
add_row() {
	/usr/bin/python3 - "$@" <<'END_OF_PYTHON'
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=20)
c.execute("PRAGMA journal_mode = wal")
c.execute("CREATE TABLE IF NOT EXISTS t (a)")
c.execute("INSERT INTO t VALUES (?)", (sys.argv[2],))
c.commit()
END_OF_PYTHON
}
# keep_open DATABASE: as a server does, in the background; its pid in server. Returns once it is open.
keep_open() {
	/usr/bin/python3 -c 'import signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute("SELECT * FROM t").fetchall(); signal.pause()' "$1" &
	server=$!
	until [ -n "$(find "/proc/$server/fd" -lname "$1-shm" -print -quit)" ]; do
		kill -0 $server
		sleep 0.05
	done
}
