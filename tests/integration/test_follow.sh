#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# imvault follow as cron, systemd and operators meet it: exit codes, JSON names, the service manager's
# protocol, signals, a kill, and what status says of the lag while it runs and when it does not.
#
#   $IMVAULT   the program
set -uo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
imvault=$(realpath -e "${IMVAULT:-build/cli/imvault}")
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-follow.XXXXXX")
export work HOME=$work/home
unset XDG_STATE_HOME NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID
cd "$work" || exit 1
follower='' server='' manager=''
clean_up() {
	local pid
	for pid in $follower $server $manager; do
		kill -9 "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	rm -rf "$work"
}
trap clean_up EXIT

row() { add_row "$work/chat.sqlite" "$1"; }
notified() { grep -qF -- "$1" manager; }
green() { "$imvault" -c conf --quiet status; }
start() {
	NOTIFY_SOCKET=$work/notify WATCHDOG_USEC=2000000 "$imvault" -c conf follow </dev/null >>log 2>&1 &
	follower=$!
}
# stop SIGNAL CODE
stop() {
	local code=0
	kill "-$1" "$follower"
	wait "$follower" 2>/dev/null || code=$?
	is "$2" "$code" "exit after SIG$1"
	follower=''
}

row 0
keep_open "$work/chat.sqlite"
# The service manager: writes down what it is told.
/usr/bin/python3 -c 'import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(os.environ["work"] + "/notify")
f = open("manager", "w")
while True: print(s.recv(4096).decode(), file=f, flush=True)' &
manager=$!
until_ok test -S notify
mkdir files home
"$imvault" init --vault vault --restore-key restore.key --node-key node.key --node im-01 >/dev/null 2>&1 </dev/null
cat >conf <<END
[node]
name = im-01
rpo = 3s
state = $work/state
[vault]
url = $work/vault
key = $work/node.key
[store chat]
type = sqlite
path = $work/chat.sqlite
[store plain]
type = files
path = $work/files
[follow]
flush = 100ms
heartbeat = 1s
END

# What cannot be.
run 2 -c conf follow nothing
says "no store named nothing"
run 2 -c conf follow plain
says "store plain cannot be followed"
run 2 -c conf follow --onec
run 0 follow --help

# Rounds.
run 0 -c conf follow --once --json
is "chat following 0" "$(json "j['stores'][0]['name'], j['stores'][0]['status'], j['stores'][0]['spooled_bytes']" | tr -d "(),'")" "the first round"
row 1
run 0 -c conf --quiet follow --once
is "" "$(cat out err)" "silence of --quiet"
run 0 -c conf status --json
is "0 False" "$(json "j['stores'][0]['log']['lag_ms'], j['stores'][0]['log']['following']" | tr -d "(),")" "the lag after a round"
row 2
sleep 3.2
run 3 -c conf status --json
is yes "$(json "'yes' if j['stores'][0]['log']['lag_ms'] > 3000 else 'no'")" "the lag of a commit that nobody ships"
says "behind its source, more than rpo"

# The service.
start
until_ok notified READY=1
until_ok green
until_ok notified WATCHDOG=1
run 9 -c conf follow --once
says "is running already"
run 0 -c conf status --json
is True "$(json "j['stores'][0]['log']['following']")" "status while it runs"
run 0 -c conf backup --json # anchored at a point of the log
sed -i 's/heartbeat = 1s/heartbeat = 2s/' conf
kill -HUP "$follower"
until_ok notified RELOADING=1
until_ok grep -q 'configuration was read again' log
sed -i 's/heartbeat = 2s/heartbeat = never/' conf
kill -HUP "$follower"
until_ok grep -q 'configuration stays as it was' log
sed -i 's/heartbeat = never/heartbeat = 1s/' conf
row 3
until_ok green
stop TERM 0
until_ok notified STOPPING=1

# Killed and started again: nothing is missing, nothing is new.
start
until_ok green
row 4
kill -9 "$follower"
wait "$follower" 2>/dev/null
row 5
start
until_ok green
# The vault goes away for a while.
mv vault away
row 6
until_ok grep -q 'nothing can be shipped' log
row 7
sleep 3.5
run 4 -c conf status
mv away vault
until_ok grep -q 'the vault is back' log
until_ok green
stop INT 0
is 1 "$(find vault/logs -mindepth 3 -maxdepth 3 | wc -l)" "epochs"

run 0 restore --vault vault --key restore.key --to back --json
is True "$(json '[p for p in j["phases"] if p["name"] == "replay"][0]["bytes"] == sum(s["log"]["bytes"] for s in j["stores"] if "log" in s)')" "the log's phase"
is "0 1 2 3 4 5 6 7" "$(/usr/bin/python3 -c 'import os, sqlite3
w = os.environ["work"]
print(*[r[0] for r in sqlite3.connect(w + "/back" + w + "/chat.sqlite").execute("SELECT a FROM t")])')" "what was restored"

[ "$failed" = 0 ]
