#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The command line as scripts and operators meet it: exit codes, messages, JSON names, help screens.
# Uses file stores only, so that it is quick; needs jq's job done by Debian's python.
#
#   $IMVAULT   the program
set -uo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
imvault=$(realpath -e "${IMVAULT:-build/cli/imvault}")
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-cli.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work"' EXIT
export HOME=$work/home
unset XDG_STATE_HOME
cd "$work" || exit 1

silent() { is "" "$(cat out err)" "silence"; }
node() { run "$1" -c node.conf "${@:2}"; }

# Help fits a screen of 24 lines of 80 and teaches with an example.
for command in '' init backup follow list restore drill verify export key status report metrics alert; do
	# shellcheck disable=SC2086 # no word for the main help
	run 0 $command --help
	is yes "$([ "$(wc -l <out)" -le 24 ] && echo yes)" "24 lines at most: $command --help"
	is yes "$([ "$(wc -L <out)" -le 80 ] && echo yes)" "80 columns at most: $command --help"
	is yes "$(grep -q 'xample\|mergency' out && echo yes)" "an example: $command --help"
done
run 0 --version
is "" "$(grep -v '^imvault [0-9]' out)" "the version"

# Usage.
run 2
run 2 frobnicate
run 2 restroe
says "did you mean restore?"
for later in prune; do
	run 2 "$later"
	says "no command $later"
done
run 2 backup --ful=1
run 2 restore --overwite
says "did you mean --overwrite?"
run 2 --json restore --nonsense
is "restore 2 True" "$(json "j['command'], j['exit_code'], 'nonsense' in j['error']" | tr -d "(),'")" "JSON of a usage error"
run 2 -c absent.conf backup
run 2 list
says "--vault"
run 4 list --vault "$work/absent" --key absent.key
run 4 verify --vault "$work/absent"

# A vault.
mkdir -p node/data/sub node/more safe
printf 'one\n' >node/data/a
printf 'two\n' >node/data/sub/b
printf 'three\n' >node/more/c
printf 'a secret phrase\nnot this line\n' >safe/phrase
printf 'another\n' >safe/other
run 2 init --vault "$work/vault"
says "--restore-key"
run 0 init --vault "$work/vault" --restore-key safe/restore.key --node-key node/node.key --passphrase-file safe/phrase --json
is "True init" "$(json "str(j['protected']) + ' ' + j['command']")" "JSON of init"
is "600 600" "$(stat -c %a safe/restore.key node/node.key | xargs)" "key files are private"
run 2 init --vault "$work/vault" --restore-key safe/r2 --node-key node/n2
run 0 init --vault "$work/vault2" --restore-key safe/r3 --node-key node/n3
says "not protected"
key=(--vault "$work/vault" --key safe/restore.key --passphrase-file safe/phrase)

cat >node.conf <<END
[node]
name = im-01
rpo  = 1h
state = $work/state
[vault]
url = $work/vault
key = $work/node/node.key
[store data]
type = files
path = $work/node/data
[store more]
type = files
path = $work/node/more
priority = 2
END
node 7 status
node 7 list

# Backups: silent without a terminal.
node 0 backup
silent
printf 'four\n' >node/data/d
node 0 --json backup
is "backup im-01 2 0 True" "$(json "j['command'], j['node'], j['seq'], j['exit_code'], j['bytes_stored'] > 0" | tr -d "(),'")" "JSON of backup"
is "True True True True" "$(json "j['forecast_full_p95_ms'] > j['forecast_full_p50_ms'] > 0, j['forecast_instant_p95_ms'] > j['forecast_instant_p50_ms'] > 0, j['forecast_learned_from'] == 0, j['rto_ms'] > 0" | tr -d "(),'")" "the forecast of a backup"
is "data more" "$(json "' '.join(s['name'] for s in j['stores'])")" "stores in their order"
node 0 backup --full --quiet
silent
node 2 backup nothing
says "no store named nothing"

# One store alone: the other keeps its image.
printf 'five\n' >node/more/e
node 0 backup data --json
is "[('data', False), ('more', True)]" "$(json "[(s['name'], s['carried']) for s in j['stores']]")" "carried over"
run 0 restore "${key[@]}" --to "$work/partly" --json
is "2" "$(json "sum(s['status'] == 'ok' for s in j['stores'])")" "both stores are restored"
is "three no" "$(cat "partly$work/node/more/c") $([ -e "partly$work/node/more/e" ] && echo yes || echo no)" "the carried store is as it was"
node 0 backup

# list, status, verify.
node 0 list
is 5 "$(grep -c ' 2 ok ' out)" "five snapshots"
node 0 list --json
is "[1, 2, 3, 4, 5]" "$(json "[s['seq'] for s in j['snapshots']]")" "JSON of list"
run 0 list "${key[@]}" --node im-01
run 7 list "${key[@]}" --node im-02
node 0 status --json
is "True True 0" "$(json "str(j['green']), str(j['state_agrees']), len(j['problems'])" | tr -d "(),'")" "JSON of status"
run 0 status "${key[@]}" --node im-01
node 0 verify
run 0 verify --vault "$work/vault" --json
run 0 verify "${key[@]}" --read --json
is "0 []" "$(json "j['exit_code'], j['damaged']" | tr -d '(,)')" "JSON of verify"
run 2 verify "${key[@]}" --read=0

# restore and export.
run 5 restore --vault "$work/vault" --key node/node.key --to "$work/never"
says "restore key"
run 5 restore --vault "$work/vault" --key safe/restore.key --to "$work/never"
run 5 restore --vault "$work/vault" --key safe/restore.key --passphrase-file safe/other --to "$work/never"
says "passphrase"
run 7 restore "${key[@]}" --at 99 --to "$work/never"
run 2 restore "${key[@]}" --store nothing --to "$work/never"
run 2 restore "${key[@]}" --check maybe --to "$work/never"
run 0 restore "${key[@]}" --dry-run --to "$work/never"
says "plan:"
is no "$([ -e never ] && echo yes || echo no)" "nothing was written"
run 2 restore "${key[@]}"
says "--overwrite"
run 0 restore "${key[@]}" --dry-run
says "plan:"
says "forecast:"
says "$work/node/data is in the way: the restore will need --overwrite"
run 0 restore "${key[@]}" --dry-run --overwrite
says "$work/node/data is in the way: it will be moved aside"
run 0 restore "${key[@]}" --dry-run --json
is "True True True True" "$(json "str(j['bytes_to_read'] > 0), str(j['bytes_to_write'] > 0), str(j['forecast_p95_ms'] >= j['forecast_p50_ms'] > 0), str(all(s['in_the_way'] for s in j['stores']))" | tr -d "(),'")" "JSON of a dry run"
is "True True" "$(json "j['forecast_p50_ms'] == j['forecast_full_p50_ms'], j['forecast_instant_p50_ms'] > 0" | tr -d "(),'")" "a dry run forecasts both ways"
run 0 restore "${key[@]}" --dry-run --instant --json
is "True" "$(json "j['forecast_p50_ms'] == j['forecast_instant_p50_ms']")" "a dry run of an instant restore"
run 0 restore "${key[@]}" --dry-run --rto 1ms
says "expected to miss the target"
is "" "$(find node -name '*imvault*' -o -name '*before-restore*')" "a dry run leaves nothing"
run 0 restore "${key[@]}" --to "$work/back"
is "plan:" "$(head -1 out | cut -d' ' -f1)" "the plan comes first"
says "RECOVERED"
says "(im): MET"
is "" "$(diff -r node/data "back$work/node/data" 2>&1; diff -r node/more "back$work/node/more" 2>&1)" "the restored files"
run 0 restore "${key[@]}" --at 1 --to "$work/first" --json
is no "$([ -e "first$work/node/data/d" ] && echo yes || echo no)" "snapshot 1 has no d"
is "True True" "$(json "str(j['rto_met']), str(j['service_ready_ms'] >= 0 and j['data_complete_ms'] >= 0)" | tr -d "(),'")" "both clocks"
run 10 restore "${key[@]}" --to "$work/late" --exec 'sleep 0.1' --rto 50ms
says "MISSED"
run 1 restore "${key[@]}" --to "$work/dead" --exec 'exit 3'
run 0 restore "${key[@]}" --overwrite --store more --path "$work/node/more/c"
run 0 export "${key[@]}" --output "$work/all.tar" --json
is 8 "$(tar -tf all.tar | wc -l)" "entries of the archive"
run 2 export "${key[@]}" --output "$work/all.tar"
run 2 export "${key[@]}" --json
run 0 export "${key[@]}" --store more
is "three" "$(tar -xOf out "${work#/}/node/more/c")" "a file from the archive on stdout"

# A store that is missing; the others are safe.
mv node/more node/away
node 3 backup --json
is "['ok', 'failed']" "$(json "[s['status'] for s in j['stores']]")" "one store failed"
is 1 "$(wc -l <err)" "one line per problem"
node 3 status
says "store more failed"
mv node/data node/away2
node 1 backup
is 2 "$(wc -l <err)" "one line per problem when all fail"
mv node/away node/more
mv node/away2 node/data
node 0 backup

# The lock: nobody unlocks by hand.
id=$(ls state)
exec 9>>"state/$id/im-01.lock"
flock 9
node 9 backup
says "im-01"
exec 9>&-
node 0 backup

# Local state lost: nothing is stored twice.
rm -r state
node 0 backup --json
is 0 "$(json "j['bytes_changed']")" "no content was stored again"

# The vault is rolled back behind our back, content and all.
cp -a vault vault.old
printf 'six\n' >node/data/f
node 0 backup
rm -r vault
mv vault.old vault
node 6 backup
says "rolled back"
node 0 backup
node 6 list
says "missing"
run 0 restore "${key[@]}" --to "$work/healed"
is "" "$(diff -r node/data "healed$work/node/data" 2>&1)" "complete again after the rollback"

# A pack is lost: no snapshot that needs it is written, and the next run stores everything again.
rm -r vault/packs/*
node 6 backup
node 0 backup
run 0 restore "${key[@]}" --to "$work/healed2"
is "" "$(diff -r node/data "healed2$work/node/data" 2>&1)" "complete again after the loss"
run 6 verify "${key[@]}" --json
is True "$(json "len(j['damaged']) > 0 and all(set(d) >= {'object', 'snapshots', 'stores', 'paths'} for d in j['damaged'])")" "JSON of damage"

# Keys.
node 0 key list --json
is "['restore', 'node']" "$(json "[k['role'] for k in j['keys']]")" "two keys"
old=$(json "j['keys'][1]['id']")
run 2 key
run 2 key frob
run 2 key add "${key[@]}" --role king --name x --out safe/x
run 5 key add --vault "$work/vault" --key node/node.key --role node --name x --out safe/x
run 0 key add "${key[@]}" --role restore --name 'Li Wei' --out safe/liwei.key --new-passphrase-file safe/other
run 0 restore --vault "$work/vault" --key safe/liwei.key --passphrase-file safe/other --to "$work/second"
run 7 key revoke "${key[@]}" 0123456789abcdef
run 0 key rotate "${key[@]}" "$old" --out node/new.key
node 5 backup
says "revoked"
sed -i 's/node.key/new.key/' node.conf
node 0 backup
run 0 key passphrase --key safe/liwei.key --passphrase-file safe/other --new-passphrase-file safe/phrase
run 5 key list --vault "$work/vault" --key safe/liwei.key --passphrase-file safe/other
run 0 key list --vault "$work/vault" --key safe/liwei.key --passphrase-file safe/phrase
run 2 key passphrase --key safe/liwei.key

# A restore key that holds another's secret is locked out by two commands, which the refusal names.
run 0 key list "${key[@]}" --json
ids=$(json "' '.join(k['id'] for k in j['keys'] if k['role'] == 'restore')")
first=${ids% *} second=${ids#* }
run 2 key revoke "${key[@]}" "$second"
says "imvault key rotate $first --key ITS-FILE --out NEW-FILE; imvault key revoke $second --key NEW-FILE"
run 0 key rotate "${key[@]}" "$first" --out safe/restore-2.key --new-passphrase-file safe/phrase
key=(--vault "$work/vault" --key safe/restore-2.key --passphrase-file safe/phrase)
run 0 key revoke "${key[@]}" "$second"
run 5 list --vault "$work/vault" --key safe/liwei.key --passphrase-file safe/phrase
run 0 restore "${key[@]}" --to "$work/third"

# The configuration's mistakes show before anything is touched.
sed 's/^priority/prioritty/' node.conf >bad.conf
run 2 -c bad.conf backup
says "prioritty"
sed 's/^type = files/type = filez/' node.conf >bad.conf
run 2 -c bad.conf backup
says "filez"

# An answer that cannot be written is a failure.
code=0
"$imvault" -c node.conf key list </dev/null >/dev/full 2>err || code=$?
is 1 "$code" "a full disk behind stdout"

echo "$count checks, $failed failed"
[ "$failed" = 0 ]
