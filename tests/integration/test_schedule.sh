#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What did not run is noticed from the vault alone: verify and report leave records there, the newest snapshot says how often
# each is meant to run, and another host judges by both.
#
#   $IMVAULT             the program
#   $IMVAULT_SET_CLOCK   a wall clock to preload
set -uo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
program=$(realpath -e "${IMVAULT:-build/cli/imvault}")
set_clock_lib=$(realpath -e "${IMVAULT_SET_CLOCK:-build/tests/tools/imvault-set-clock.so}")
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-schedule.XXXXXX")
vault_id=none # of the other host's state, which root has in /var/lib
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work" "/var/lib/imvault/$vault_id" 2>/dev/null' EXIT
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
hour=3600000

# Two hosts: the node with its configuration, and one that has only the vault and a key.
here() { HOME=$work/home run "$1" -c conf "${@:2}"; }
there() { HOME=$work/other run "$1" "${@:2}" --vault "$work/vault" --key "$work/${key-safe.key}" --node im-01; }
told() { is True "$(json "any('$1' in t for t in j['problems'] + j['warnings'])")" "the finding \"$1\""; }
untold() { is False "$(json "any('$1' in t for t in j['problems'] + j['warnings'])")" "no finding \"$1\""; }
records() { find vault/runs -type f -path "*/$1/*" 2>/dev/null | wc -l; }
overdue() { is "$1" "$(json "' '.join(n['run'] for n in j['next_runs'] if n['overdue'])")" "what is overdue"; }

set_clock 0
mkdir data
head -c 200000 /dev/urandom >data/a
cat >conf <<END
[node]
name = im-01
rto = 2h
state = $work/state
[vault]
url = $work/vault
key = $work/node.key
[schedule]
backup = 30d
verify = 1s
drill = 90d
report = 7d
[store data]
type = files
path = $work/data
END
here 0 init --vault "$work/vault" --restore-key safe.key --node-key node.key --node im-01
vault_id=$(/usr/bin/python3 -c 'import json; print(json.load(open("vault/vault.json"))["id"])')
here 0 backup

# Nothing ran yet, and both hosts know it. A node key and a restore key see the same.
here 3 status --json
overdue "verify drill report"
told "there was no report yet, and one is meant to run every 7 days: run imvault report"
there 3 status --json
overdue "verify drill report"
key=node.key there 3 status --json
overdue "verify drill report"

# Each run leaves one record, silently.
here 0 verify --read
is "" "$(cat out err)" "silence of verify"
is 1 "$(records verify)" "a record of verify"
here 0 report -o "$work/report.html"
is 1 "$(records report)" "a record of report"
here 0 verify --json
is "True False" "$(json "j['run_records'][0].startswith('runs/im-01/verify/'), 'run_record_error' in j" | tr -d "(),'")" "the answer names it"
is 2 "$(json "j['runs']")" "those before were checked"
there 3 status --json
overdue drill
is "0 0 0 $(hostname)" "$(json "*(j['last_verify'][k] for k in ('exit_code', 'read_percent', 'damaged', 'host'))" 2>&1 | tr -d "(),'")" "the last verify"
is "0 False" "$(json "j['last_report']['exit_code'], 'read_percent' in j['last_report']" | tr -d "(),'")" "the last report"
is True "$(json "0 <= j['verify_age_ms'] < 60000")" "its age"
here 3 status --json
is "['backup', 'verify', 'report']" "$(json "[r['run'] for r in j['last_runs']]")" "what ran here"

# Late: seen from elsewhere, and healed from elsewhere.
set_clock $((hour / 2))
there 3 status --json
overdue "verify drill"
told "the verify that is meant to run every 1.00 s is overdue by 29 min"
there 3 status
says "verify OVERDUE"
there 0 metrics
is 1 "$(awk '/^imvault_run_overdue/ && /verify/ { print $2 }' out)" "the metric of verify"
is 0 "$(awk '/^imvault_run_overdue/ && /report/ { print $2 }' out)" "the metric of report"
there 0 verify --read=10
here 3 status --json
overdue drill
here 3 status
says ", 10 % read"
set_clock $((8 * 24 * hour))
there 3 status --json
overdue "verify drill report"
told "run every 7 days is overdue by"
key=node.key there 0 report -o "$work/report2.html"
here 0 verify
there 3 status --json
overdue drill

# Damage that another host found is known here, until a run that could see it finds none.
pack=$(find vault/packs -type f | head -1)
cp "$pack" pack
printf 'x' | dd of="$pack" bs=1 seek=100 conv=notrunc status=none
there 6 verify --read
here 3 status --json
told "verify found damage"
told "imvault verify --read with a restore key"
is True "$(json "'damage_found' in j and j['last_verify']['damaged'] == 1")" "when, and how much"
here 0 metrics
is yes "$(awk '/^imvault_damage_timestamp_seconds/ { print ($2 > 1e9 ? "yes" : "no") }' out)" "the metric"
cp pack "$pack"
there 0 verify --read=50
here 3 status --json
told "verify found damage"
here 0 verify --read
here 3 status --json
told "verify found damage" # a node key does not decrypt
there 0 verify --read
here 3 status --json
untold "verify found damage"
is False "$(json "'damage_found' in j")" "no damage is known"

# What the node found, the other host knows; its own full read settles it on both.
printf 'x' | dd of="$pack" bs=1 seek=100 conv=notrunc status=none
here 6 verify --read
there 3 status --json
told "verify found damage"
cp pack "$pack"
here 0 verify --read
there 3 status --json
untold "verify found damage"

# Without a node's name a verify with a restore key speaks for all nodes; with a node key, for its own.
HOME=$work/home run 0 key add --role node --name two --node im-02 --out two.key --vault "$work/vault" --key safe.key
sed "s,im-01,im-02,; s,node.key,two.key," conf >conf2
HOME=$work/two run 0 -c conf2 backup
HOME=$work/other run 0 verify --vault "$work/vault" --key safe.key
is 1 "$(find vault/runs/im-02 -type f | wc -l)" "a record of the other node, too"
before=$(records verify)
HOME=$work/two run 0 -c conf2 verify
is "$((before + 1)) 2" "$(records verify) $(find vault/runs/im-02 -type f | wc -l)" "its own only"
key=two.key there 0 verify
is "$((before + 1))" "$(records verify)" "no record for a node that the key may not write"
HOME=$work/other run 0 verify --vault "$work/vault"
is "$((before + 1))" "$(records verify)" "no record without a key"

# A forged one is said, harms no data and counts for nothing.
forged=$(find vault/runs/im-02 -type f | sort | head -1)
cp "$forged" vault/runs/im-01/verify/
HOME=$work/other run 0 verify --vault "$work/vault" --key safe.key --json
is "1 0" "$(json "sum('it counts for nothing' in w for w in j['warnings']), len(j['damaged'])" | tr -d "(),'")" "a finding of verify"
here 3 status --json
told "renamed or moved; it counts for nothing"
rm "vault/runs/im-01/verify/${forged##*/}"

# A clock that was ahead makes no run that never ends.
set_clock $((300 * 24 * hour))
here 0 verify
set_clock $((8 * 24 * hour + hour))
there 3 status --json
told "of the future"
overdue "verify drill"

# A vault that cannot be written is verified all the same.
before=$(records verify)
if [ "$(id -u)" != 0 ]; then
	chmod -R a-w vault
	there 0 verify --read
	is "" "$(cat out)" "silence" # what is said is about the record of the future
	there 0 verify --read --json
	chmod -R u+w vault
elif unshare -m true 2>/dev/null; then
	HOME=$work/other unshare -m sh -c "mount --bind vault vault && mount -o remount,bind,ro vault && exec ./program verify --read --json --vault '$work/vault' \
		--key '$work/safe.key'" >out 2>err
	is 0 $? "exit on a read-only vault"
else
	echo "not tried: a read-only vault, which root needs a mount for"
	echo '{"run_record_error": "", "damaged": []}' >out
fi
is "True 0" "$(json "'run_record_error' in j, len(j['damaged'])" | tr -d "(),'")" "why there is no record"
is "$before" "$(records verify)" "no record"

# A real restore says why it was needed, and the report shows it.
HOME=$work/other run 0 restore --vault "$work/vault" --key safe.key --node im-01 --to back --reason 'disk <3> died' --operator night
here 0 report -o "$work/report3.html"
is yes "$(grep -q 'class="why">disk &lt;3&gt; died' report3.html && echo yes)" "the incident's cause"
is yes "$(grep -q '>[^<]*night' report3.html && echo yes)" "who did it"

echo "$count checks, $failed failed"
[ "$failed" = 0 ]
