#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# imvault metrics: what it writes when all is well and when it is not, that a file is whole or not there,
# and that rules and dashboard use what there is.
#
#   $IMVAULT, $IMVAULT_MAKE_DRILL   the program; writes recovery records
#   $IMVAULT_SET_CLOCK              a wall clock to preload
set -uo pipefail
export LC_ALL=C.UTF-8
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/integration/lib.sh
. "$here/lib.sh"
program=$(realpath -e "${IMVAULT:-build/cli/imvault}")
make_drill=$(realpath -e "${IMVAULT_MAKE_DRILL:-build/tests/tools/imvault-make-drill}")
set_clock_lib=$(realpath -e "${IMVAULT_SET_CLOCK:-build/tests/tools/imvault-set-clock.so}")
monitoring=$here/../../monitoring
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-metrics.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work"' EXIT
export HOME=$work/home PYTHONDONTWRITEBYTECODE=1
unset XDG_STATE_HOME
cd "$work" || exit 1

export IMVAULT_TEST_CLOCK=$work/clock
set_clock() { /usr/bin/python3 -c 'import struct, sys; sys.stdout.buffer.write(struct.pack("<q", int(sys.argv[1])))' "$1" >clock; }
cat >program <<END
#!/bin/sh
export ASAN_OPTIONS=\${ASAN_OPTIONS:-}:verify_asan_link_order=0
LD_PRELOAD=$set_clock_lib exec $program "\$@"
END
chmod +x program
imvault=$work/program

# metric SERIES [FILE]: its value
metric() { awk -v s="$1" '$1 == s { print $2 }' "${2:-out}"; }
has() { is "$2" "$(metric "$1" "${3-}")" "$1"; }
node='node="im-01"'

day=86400000
set_clock 0
mkdir -p data
printf 'one\n' >data/a
add_row "$work/chat.db" one
run 0 init --vault "$work/vault" --restore-key safe.key --node-key node.key
cat >conf <<END
[node]
name = im-01
rpo = 10m
state = $work/state
[vault]
url = $work/vault
key = $work/node.key
[schedule]
backup = 15m
verify = 1d
drill = 7d
[store chat]
type = sqlite
path = $work/chat.db
[store data]
type = files
path = $work/data
END

# Before anything ran: no snapshot, no runs, everything overdue, but metrics.
run 0 -c conf metrics
has "imvault_up{$node}" 1
has "imvault_snapshots{$node}" 0
has "imvault_run_overdue{$node,command=\"drill\"}" 1
has "imvault_run_last_exit_code{$node,command=\"backup\"}" ""
run 2 metrics --vault "$work/vault" --key node.key
says "which node?"

# The first round of the follower takes a snapshot of its own.
run 0 -c conf backup
run 0 -c conf follow --once

# The vault is away: what is known here, and 4.
mkdir textfile
mv vault vault.away
add_row "$work/chat.db" three
run 4 -c conf backup
run 4 -c conf metrics -o "$work/textfile/imvault.prom"
says "vault"
has "imvault_up{$node}" 0 textfile/imvault.prom
has "imvault_run_last_exit_code{$node,command=\"backup\"}" 4 textfile/imvault.prom
has "imvault_rto_target_seconds{$node}" 900.000 textfile/imvault.prom
has "imvault_vault_bytes{$node}" "" textfile/imvault.prom
is yes "$(awk '/^imvault_log_lag_seconds/ { print ($2 > 0 ? "yes" : "no") }' textfile/imvault.prom)" "the lag is known without the vault"
mv vault.away vault

# Two days later.
set_clock $((2 * day))
add_row "$work/chat.db" two
head -c 300000 /dev/urandom >data/b
run 0 -c conf backup
run 0 -c conf follow --once
run 0 -c conf verify --read
drill() { # VERDICT SCENARIO READY-MS RTO-MET MEMBERS...
	"$make_drill" "$work/vault" safe.key im-01 "{\"kind\": \"drill\", \"time_ms\": $(($(date +%s%3N) + 2 * day)), \"scenario\": \"$2\", \"verdict\": \"$1\",
		\"service_ready_ms\": $3, \"data_complete_ms\": 12000, \"rto_ms\": 900000, \"rto_met\": $4, \"rpo_met\": true, \"rpo_ms\": 500,
		\"instant_reached_ms\": 1, \"forecast\": {\"p50_ms\": 9000, \"p95_ms\": 12000}, \"phases\": [], \"exit_code\": 0, \"mode\": \"ordinary\",
		\"sizes\": {\"write_bytes\": 1000000, \"read_bytes\": 100000, \"files\": 2, \"packs\": 1, \"stores\": 2, \"database_bytes\": 8192, \"log_bytes\": 0, \"log_segments\": 0},
		\"machine\": {\"cpus\": 2, \"read_rate\": 1000000000, \"decode_rate\": 300000000, \"write_rate\": 500000000}}" >drill.out 2>&1
	is 0 $? "a record: $(cat drill.out)"
}
mkdir scratch
run 0 -c conf drill --key "$work/safe.key" --scratch "$work/scratch"
run 0 -c conf metrics
has "imvault_run_last_exit_code{$node,command=\"drill\"}" 0
has "imvault_drill_passed{$node,scenario=\"full\"}" 1
is yes "$(awk '/^imvault_drill_service_ready_seconds/ { print ($2 > 0 ? "yes" : "no") }' out)" "a real drill's time"
drill passed full 10500 true
drill passed instant 700 true
drill missed full 901500 false
run 0 -c conf metrics
cp out healthy.prom
has "imvault_snapshots{$node}" 3
has "imvault_run_last_exit_code{$node,command=\"backup\"}" 0
has "imvault_runs_total{$node,command=\"backup\"}" 4
has "imvault_run_failures_total{$node,command=\"backup\"}" 1
has "imvault_store_ok{$node,store=\"chat\"}" 1
has "imvault_log_lag_seconds{$node,store=\"chat\"}" 0.000
has "imvault_rpo_target_seconds{$node}" 600.000
has "imvault_rto_target_seconds{$node}" 900.000
has "imvault_recovery_records{$node}" 4
has "imvault_recovery_record_findings{$node}" 0
has "imvault_drill_passed{$node,scenario=\"full\"}" 0
has "imvault_drill_sound{$node,scenario=\"full\"}" 1
has "imvault_drill_passed{$node,scenario=\"instant\"}" 1
has "imvault_drill_service_ready_seconds{$node,scenario=\"full\"}" 901.500
has "imvault_drill_data_loss_seconds{$node,scenario=\"full\"}" 0.500
has "imvault_run_overdue{$node,command=\"drill\"}" 0
has "imvault_damage_timestamp_seconds{$node}" 0.000
has "imvault_state_agrees{$node}" 1
has "imvault_status_findings{$node,severity=\"red\"}" 1
is yes "$(awk '/^imvault_vault_daily_growth_bytes/ { print (($2 > 140000 && $2 < 200000) ? "yes" : "no") }' out)" "300 kB in two days"
is yes "$(awk '/^imvault_recovery_window_.*_timestamp/ && /data/ { v[++n] = $2 } END { print (v[2] - v[1] >= 172800 && v[2] - v[1] < 180000 ? "yes" : "no") }' out)" \
	"two days can be restored"
run 0 metrics --vault "$work/vault" --key safe.key --node im-01
has "imvault_drill_passed{$node,scenario=\"instant\"}" 1
has "imvault_rpo_target_seconds{$node}" 600.000
run 0 -c conf metrics --json
is "True imvault_build_info" "$(json "j['up'], j['metrics'].split()[2]" | tr -d "(),'")" "JSON of metrics"

# A failed backup leaves no snapshot, but is seen; one that finds another at work is none.
mv data away
mv chat.db away.db
run 1 -c conf backup
run 0 -c conf metrics
has "imvault_run_last_exit_code{$node,command=\"backup\"}" 1
has "imvault_run_failures_total{$node,command=\"backup\"}" 2
has "imvault_runs_total{$node,command=\"backup\"}" 5
has "imvault_run_last_success_timestamp_seconds{$node,command=\"backup\"}" \
	"$(metric "imvault_run_last_success_timestamp_seconds{$node,command=\"backup\"}" healthy.prom)"
is no "$([ "$(metric "imvault_run_last_attempt_timestamp_seconds{$node,command=\"backup\"}")" = \
	"$(metric "imvault_run_last_attempt_timestamp_seconds{$node,command=\"backup\"}" healthy.prom)" ] && echo yes || echo no)" "a new attempt"
mv away data
mv away.db chat.db
exec 9>>"state/$(ls state)/im-01.lock"
flock 9
run 9 -c conf backup
exec 9>&-
run 0 -c conf metrics
has "imvault_runs_total{$node,command=\"backup\"}" 5
# What cannot be read of the past costs the past, no more.
printf 'no JSON' >"state/$(ls state)/im-01.backup.run.json"
run 0 -c conf metrics
has "imvault_run_last_exit_code{$node,command=\"backup\"}" ""
run 0 -c conf backup
run 0 -c conf metrics
has "imvault_runs_total{$node,command=\"backup\"}" 1

# To a file: readable by node_exporter, whole, no leftovers.
mv textfile/imvault.prom away.prom
run 0 -c conf metrics -o "$work/textfile/imvault.prom"
is "" "$(cat out err)" "silence"
is 644 "$(stat -c %a textfile/imvault.prom)" "its mode"
before=$(cat textfile/imvault.prom)
is 8 "$(trap '' XFSZ; ulimit -f 1; "$imvault" -c conf metrics -o "$work/textfile/imvault.prom" >/dev/null 2>err; echo $?)" "no space for the file"
is "$before" "$(cat textfile/imvault.prom)" "the old file is whole"
is imvault.prom "$(ls -A textfile)" "nothing is left"
run 1 -c conf metrics -o "$work/absent/imvault.prom"
run 1 -c conf metrics -o "$work/textfile"
is imvault.prom "$(ls -A textfile)" "nothing is left beside a folder's name"

# Damage stays until a verify that read everything found none; a share that is sound does not count.
run 0 -c conf backup
pack=$(find vault/packs -type f | head -1)
cp "$pack" pack
printf 'x' | dd of="$pack" bs=1 seek=100 conv=notrunc status=none
run 6 -c conf verify --read
run 0 -c conf metrics
is yes "$(awk '/^imvault_damage_timestamp_seconds/ { print ($2 > 1e9 ? "yes" : "no") }' out)" "damage"
cp pack "$pack"
run 0 -c conf verify
run 0 -c conf metrics
is yes "$(awk '/^imvault_damage_timestamp_seconds/ { print ($2 > 1e9 ? "yes" : "no") }' out)" "damage is not forgotten"
run 0 -c conf verify --read
run 0 -c conf metrics
has "imvault_damage_timestamp_seconds{$node}" 0.000

# A record is removed, the vault is rolled back.
rm "$(find vault/drills -name '00000002-*')"
rm "$(find vault/snapshots -type f | sort | tail -1)"
run 0 -c conf metrics
has "imvault_recovery_record_findings{$node}" 1
has "imvault_state_agrees{$node}" 0
rm "$(find vault/snapshots -type f | sort | sed -n 2p)"
run 0 -c conf metrics
has "imvault_snapshot_chain_breaks{$node}" 1

# Rules and dashboard.
is "0" "$(/usr/bin/python3 "$here/metric_names.py" "$monitoring" healthy.prom away.prom >names 2>&1; echo $?)" "names: $(cat names)"
tail -1 names
if command -v promtool >/dev/null; then
	for file in healthy.prom away.prom out; do
		is "0 " "$(promtool check metrics <"$file" >lint 2>&1; echo $? "$(cat lint)")" "promtool check metrics $file"
	done
	is 0 "$(promtool check rules "$monitoring/prometheus/imvault.rules.yml" dashboard.rules.yml >lint 2>&1; echo $?)" "promtool check rules: $(cat lint)"
	is 0 "$(promtool test rules "$monitoring/prometheus/imvault.rules.test.yml" >lint 2>&1; echo $?)" "promtool test rules: $(cat lint)"
	# The last full drill was too slow; nothing else is wrong.
	is 0 "$(/usr/bin/python3 "$here/scrape.py" "$monitoring" healthy.prom ImvaultDrillFailed >scraped 2>&1; echo $?)" "Prometheus: $(cat scraped)"
fi

echo "$count checks, $failed failed"
[ "$failed" = 0 ] || exit 1
command -v promtool >/dev/null || {
	echo "promtool is not installed (Debian: prometheus): rules and format were not checked by it"
	exit 77
}
