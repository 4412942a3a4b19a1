#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# imvault status: the screen, its JSON names, what is red, what is amber, and that each says what to do.
#
#   $IMVAULT, $IMVAULT_MAKE_DRILL   the program; writes recovery records
#   $IMVAULT_SET_CLOCK              a wall clock to preload
set -uo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
program=$(realpath -e "${IMVAULT:-build/cli/imvault}")
make_drill=$(realpath -e "${IMVAULT_MAKE_DRILL:-build/tests/tools/imvault-make-drill}")
set_clock_lib=$(realpath -e "${IMVAULT_SET_CLOCK:-build/tests/tools/imvault-set-clock.so}")
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-status.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work"' EXIT
export HOME=$work/home
unset XDG_STATE_HOME NO_COLOR
cd "$work" || exit 1

export IMVAULT_TEST_CLOCK=$work/clock
clock=0 # ahead of the true one, ms
set_clock() {
	clock=$1
	/usr/bin/python3 -c 'import struct, sys; sys.stdout.buffer.write(struct.pack("<q", int(sys.argv[1])))' "$1" >clock
}
cat >program <<END
#!/bin/sh
export ASAN_OPTIONS=\${ASAN_OPTIONS:-}:verify_asan_link_order=0
LD_PRELOAD=$set_clock_lib exec $program "\$@"
END
chmod +x program
imvault=$work/program
hour=3600000

set_clock 0
mkdir data
printf 'one\n' >data/a
add_row "$work/chat.db" one
run 0 init --vault "$work/vault" --restore-key safe.key --node-key node.key
configure() { # [node] lines, [schedule] lines
	cat >conf <<-END
		[node]
		name = im-01
		state = $work/state
		$1
		[vault]
		url = $work/vault
		key = $work/node.key
		[schedule]
		$2
		[store chat]
		type = sqlite
		path = $work/chat.db
		[store data]
		type = files
		path = $work/data
	END
}
configure "rpo = 10m" "backup = 15m"
status() { run "$1" -c conf status --json; }
problems() { json "len(j['problems'])"; }
warnings() { json "len(j['warnings'])"; }
# told WORDS: among the problems or warnings of the last answer
told() { is True "$(json "any('$1' in t for t in j['problems'] + j['warnings'])")" "the finding \"$1\""; }

# No snapshot.
status 7
told "there was no backup yet"

# Green.
run 0 -c conf backup
run 0 -c conf follow --once
status 0
is "True 0 0" "$(json "j['green'], len(j['problems']), len(j['warnings'])" | tr -d "(),'")" "green"
is "True True True True" "$(json "*(k in j for k in ('snapshot', 'seq', 'time', 'age_ms'))" 2>&1 | tr -d "(),'")" "the snapshot's fields"
is "[]" "$(json "[k for k in 'rto_ms rpo_ms vault vault_bytes vault_objects vault_free_bytes state_agrees stores problems restores node snapshots forecast window next_runs last_runs recovery_records'.split() if k not in j]")" "fields"
is "True 900000 600000" "$(json "j['state_agrees'], j['rto_ms'], j['rpo_ms']" | tr -d "(),'")" "targets"
is "False" "$(json "'last_drill' in j or 'growth_bytes_per_day' in j or 'verify_age_ms' in j")" "what is not known is left out"
is "[('chat', True), ('data', False)]" "$(json "[(w['store'], w['logged']) for w in j['window']]")" "windows"
is "True" "$(json "all(w['from'] <= w['to'] and w['gaps'] == [] for w in j['window'])")" "windows without gaps"
is "True" "$(json "all(0 < f['ready_p50_ms'] <= f['ready_p95_ms'] and f['complete_p50_ms'] <= f['complete_p95_ms'] for f in j['forecast'].values())")" "forecasts"
is "full instant" "$(json "' '.join(sorted(j['forecast']))")" "scenarios"
is "[('backup', 900000, False)]" "$(json "[(n['run'], n['every_ms'], n['overdue']) for n in j['next_runs']]")" "next runs"
is "['backup', 'follow']" "$(json "[r['run'] for r in j['last_runs'] if r['exit_code'] == 0 and 'last_success' in r]")" "last runs"

# The screen.
screen() {
	is yes "$([ "$(wc -l <out)" -le 24 ] && echo yes)" "24 lines at most"
	is yes "$([ "$(sed 's/\x1b\[[0-9;]*m//g' out | wc -L)" -le 80 ] && echo yes)" "80 columns at most"
}
run 0 -c conf status
is "GREEN" "$(head -1 out | cut -d' ' -f1)" "the first word"
screen
run 0 -c conf status --quiet
is "" "$(cat out err)" "silence of --quiet"
escapes() { # of the program on a terminal
	TERM=${TERM-} script -qec "$imvault -c conf status" /dev/null </dev/null >tty 2>&1
	grep -c $'\x1b' tty
}
is 1 "$(TERM=xterm escapes)" "colours on a terminal"
is 0 "$(TERM=xterm NO_COLOR=1 escapes)" "no colours with NO_COLOR"
is 0 "$(TERM=dumb escapes)" "no colours on a dumb terminal"
run 0 -c conf status
is 0 "$(grep -c $'\x1b' out)" "no colours into a pipe"

# Any key, any machine: targets and schedule are those of the last snapshot.
run 0 status --vault "$work/vault" --key node.key --node im-01 --json
is "[backup] 600000 2" "$(json "[n['run'] for n in j['next_runs']], j['rpo_ms'], len(j['window'])" | tr -d "(),'")" "from another machine"
run 0 status --vault "$work/vault" --key safe.key --node im-01
says "next      backup in"
run 2 status --vault "$work/vault" --key safe.key

# Drills.
drill() { # VERDICT SCENARIO READY-MS RTO-MET [MEMBERS]
	"$make_drill" "$work/vault" safe.key im-01 "{\"kind\": \"drill\", \"time_ms\": $(($(date +%s%3N) + clock)), \"scenario\": \"$2\", \"verdict\": \"$1\",
		\"service_ready_ms\": $3, \"data_complete_ms\": 12000, \"rto_ms\": 900000, \"rto_met\": $4, \"rpo_met\": ${5-true}, \"rpo_ms\": 500,
		\"operator\": \"olivia\", \"host\": \"spare\", \"snapshot\": \"00000001-00\", \"exit_code\": 0}" >drill.out 2>&1
	is 0 $? "a record: $(cat drill.out)"
}
drill passed full 10500 true
status 0
is "full passed True 10500 12000 olivia" "$(json "*(j['last_drill'][k] for k in ('scenario', 'verdict', 'passed', 'service_ready_ms', 'data_complete_ms', 'operator'))" | tr -d "(),'")" "the drill"
is "1 True" "$(json "j['recovery_records'], j['last_verified_restore'] == j['last_drill']['time']" | tr -d "(),'")" "the proof"
run 0 -c conf status
says "full: passed, ready 10.5 s, complete 12.0 s"
drill different instant 700 true
status 3
told "failed: what it restored was not sound"
told "imvault drill --instant"
is "False" "$(json "j['last_drill']['passed'] or j['last_verified_restore'] == j['last_drill']['time']")" "the last that passed is another one"
drill missed full 901000 false
status 3
told "later than rto = 15 min"
drill missed full 9000 true false
status 3
told "reached less than rpo asks for"
drill interrupted full -1 false
status 0
told "was interrupted and proves nothing"
is "True 0 1" "$(json "j['green'], len(j['problems']), len(j['warnings'])" | tr -d "(),'")" "amber is no failure"
run 0 -c conf status
is "AMBER" "$(head -1 out | cut -d' ' -f1)" "the first word of amber"
says "imvault: the last drill"
drill '\u001b[2J\u0007passed' '\u001b[1mfull' 1 true
run 3 -c conf status
is 0 "$(cat out err | grep -c $'[\x1b\x07]')" "nothing from the vault controls the terminal"
is "RED" "$(head -1 out | cut -d' ' -f1)" "the first word of red"
screen
drill passed full 10500 true
status 0

# A record is removed.
cp -a vault vault.whole
rm vault/drills/im-01/00000003-*
status 3
told "recovery records were removed or damaged"
rm -r vault
mv vault.whole vault

# The forecast against the target; whatever it is just now, the answer must agree with itself.
for rto in 1ms "$(json "(min(f['ready_p50_ms'] for f in j['forecast'].values()) + min(f['ready_p95_ms'] for f in j['forecast'].values())) // 2")ms" 2h; do
	configure "rto = $rto" ""
	"$imvault" -c conf status --json >out 2>err
	is agrees "$(/usr/bin/python3 - <<-'END_OF_PYTHON'
		import json
		j = json.load(open("out"))
		p50, p95 = (min(f[k] for f in j["forecast"].values()) for k in ("ready_p50_ms", "ready_p95_ms"))
		red = sum("recovery now would take about" in t for t in j["problems"])
		amber = sum("recovery now could take up to" in t for t in j["warnings"])
		wanted = (1, 0) if p50 > j["rto_ms"] else (0, 1) if p95 > j["rto_ms"] else (0, 0)
		print("agrees" if (red, amber) == wanted and j["exit_code"] == (3 if red else 0) else f"{p50} {p95} {j['rto_ms']} {red} {amber} {j['exit_code']}")
	END_OF_PYTHON
	)" "the forecast against rto = $rto"
done
configure "rto = 1ms" ""
status 3
told "find out what takes long with imvault drill"

# A failed backup: amber as long as rpo or a schedule watches over the rest, else red.
mv data away
mv chat.db away.db
configure "rpo = 10m" ""
run 1 -c conf backup
configure "rpo = 10m" ""
mv away.db chat.db
mv away data
status 0
told "the last backup"
told "failed with 1"
rm -r "state/$(ls state)/im-01.follow"
configure "" ""
status 3
told "put that right and run imvault backup"
run 0 -c conf backup
status 0
is 0 "$(warnings)" "a backup heals it"

# Growth, and what is overdue.
set_clock $((48 * hour))
head -c 1000000 /dev/urandom >data/b
run 0 -c conf backup
status 0
is True "$(json "480000 < j['growth_bytes_per_day'] < 600000 and j['vault_days_left'] > 100")" "1 MB in two days"
is True "$(json "j['window'][1]['from'] < j['window'][1]['to']")" "the window of snapshots"
run 0 -c conf verify --read
configure "" "backup = 1h
		verify = 1d
		drill = 7d"
status 0
is "[('backup', False), ('verify', False), ('drill', False)]" "$(json "[(n['run'], n['overdue']) for n in j['next_runs']]")" "nothing is due"
set_clock $((48 * hour + hour + hour / 15)) # a timer may be a little late
status 0
set_clock $((50 * hour))
status 3
is 1 "$(problems)" "the backup is overdue"
told "the backup that is meant to run every 60 min is overdue by"
told "Run imvault backup"
run 0 -c conf backup
set_clock $((240 * hour))
run 0 -c conf backup
status 3
is 2 "$(problems)" "verify and drill are overdue"
told "Run imvault verify"
told "Run imvault drill"
run 3 -c conf status
says "backup in"
says "verify OVERDUE, drill OVERDUE"
screen
configure "" ""

# Damage.
pack=$(find vault/packs -type f | head -1)
cp "$pack" pack
printf 'x' | dd of="$pack" bs=1 seek=100 conv=notrunc status=none
run 6 -c conf verify --read
status 3
told "verify found damage"
cp pack "$pack"
run 0 -c conf verify --read
status 0

# Gaps of the log (the second: what it stood on was removed above), and of the chain of snapshots.
run 3 -c conf follow --once
run 0 -c conf follow --once
rm -r state
add_row "$work/chat.db" two
run 3 -c conf follow --once
run 0 -c conf backup
status 0
is "2 0" "$(json "*(len(w['gaps']) for w in j['window'])" | tr -d "(),'")" "gaps"
run 0 -c conf status
says ", 2 gaps"
screen
rm "$(find vault/snapshots -type f | sort | sed -n 2p)"
status 0
told "imvault list shows where"
rm "$(find vault/snapshots -type f | sort | tail -1)"
status 3
told "the vault lacks snapshot"
mv vault away
status 4

echo "$count checks, $failed failed"
[ "$failed" = 0 ]
