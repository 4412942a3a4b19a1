#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# imvault restore --instant as an operator meets it: to any recovery point, by blocks, by files and
# through FUSE the same bytes as an ordinary restore; what stands in the folder already; detached and
# joined, given up, refused while it is under way; start traces; the service manager's store.
#
#   $IMVAULT, $IMVAULT_MAKE_STORE, $IMVAULT_SLOW_FOLDER
set -uo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
imvault=$(realpath -e "${IMVAULT:-build/cli/imvault}")
make_store=$(realpath -e "${IMVAULT_MAKE_STORE:-build/tests/tools/imvault-make-store}")
slow_folder=${IMVAULT_SLOW_FOLDER:-build/tests/tools/imvault-slow-folder}
[ "$(id -u)" = 0 ] || { echo "skipped: an instant restore needs root"; exit 77; }
# no other mount namespace, such as a drill's, shall have a copy of our mounts and keep them busy
[ -n "${apart-}" ] || apart=yes exec unshare --mount --propagation private bash "$0" "$@"
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-instant.XXXXXX")
export work HOME=$work/home
unset XDG_STATE_HOME NOTIFY_SOCKET
export TSAN_OPTIONS=${TSAN_OPTIONS:-}:die_after_fork=0 # the worker is a copy of a process that had threads
slow_folder=$(realpath "$slow_folder")
cd "$work" || exit 1
slow='' manager=''
clean_up() {
	local place
	"$imvault" restore --abort "$work/fast$work/data/im" >/dev/null 2>&1
	for pid in $slow $manager; do
		kill "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	awk -v w="$work/" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r place; do
		umount -l "$place"
	done
	chattr -R -f -i "$work"
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT

same() { is yes "$(cmp -s "$1" "$2" && echo yes || echo no)" "$1 and $2 are the same"; }
restore() { run "$1" restore --vault "$vault" --key restore.key "${@:2}"; }
works_in() { [ "$(readlink "/proc/$1/cwd")" = "$2" ]; }
nothing_left() { is 0 "$(find "$@" -name '.*imvault*' | wc -l)" "stages in $*"; }
append() { "$make_store" --db data/im/chat.db --append "$1" >/dev/null; "$imvault" -c conf follow --once >/dev/null 2>err || is 0 $? "a round of the follower"; }

vault=$work/vault
mkdir -p data/im
"$make_store" data/im/chat.db --size 60 --wal >/dev/null
"$make_store" --uploads data/im/up --upload-mb 20 >/dev/null
cat >conf <<END
[node]
name = im-77
tier = im
[vault]
url = $vault
key = $work/node.key
[store archive]
type = sqlite
path = $work/data/im/chat.db
[store up]
type = files
path = $work/data/im/up
END
run 0 init --vault "$vault" --restore-key restore.key --node-key node.key
run 0 -c conf backup
append 100
append 500
middle=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
append 500

kinds=
for kind in blocks files fuse; do
	"$imvault" restore --vault "$vault" --key restore.key --to "$work/try" --instant=$kind --stop true >out 2>err </dev/null
	case $? in
	0) kinds="$kinds $kind" ;;
	*) echo "not tried: --instant=$kind: $(tail -1 err)" ;;
	esac
	rm -rf --one-file-system try
done
[ -n "$kinds" ] || { echo "skipped: no kind of instant restore works here: $(tail -1 err)"; exit 77; }
probe() { echo "sqlite3 -readonly '$1$work/data/im/chat.db' 'SELECT count(*), max(sort_id) FROM prosodyarchive' >'$work/probe'"; }

echo "== the same bytes as an ordinary restore, to each recovery point"
for at in latest "$middle" 1; do
	restore 0 --to "$work/plain" --at "$at"
	wanted=$(sqlite3 -readonly "plain$work/data/im/chat.db" 'SELECT count(*), max(sort_id) FROM prosodyarchive')
	for kind in $kinds; do
		restore 0 --to "$work/fast" --at "$at" --instant="$kind" --exec "$(probe "$work/fast")" --stop true --json
		is "$kind" "$(json 'j["mode"]')" "mode"
		is True "$(json '0 <= j["service_ready_ms"] <= j["data_complete_ms"]')" "both clocks"
		is "$wanted" "$(cat probe)" "what the service saw at $at by $kind"
		rm -f "fast$work/data/im/chat.db-wal" "fast$work/data/im/chat.db-shm"
		same "plain$work/data/im/chat.db" "fast$work/data/im/chat.db"
		is "" "$(cd "plain$work/data/im/up" && find . -printf '%p %y %m %U %G %s %T@\n' | sort >"$work/a"
			cd "$work/fast$work/data/im/up" && find . -printf '%p %y %m %U %G %s %T@\n' | sort | diff "$work/a" -)" "metadata at $at by $kind"
		nothing_left fast
		rm -rf --one-file-system fast
	done
	rm -rf plain
done

echo "== what stands in the folder"
mkdir -p "there$work/data/im/up"
echo old >"there$work/data/im/chat.db"
echo log >"there$work/data/im/chat.db-wal"
echo mine >"there$work/data/im/other"
restore 2 --to "$work/there" --instant
says "exists and is not empty"
(cd "there$work/data/im" && exec sleep 100) &
sleeper=$!
until_ok works_in $sleeper "$work/there$work/data/im"
restore 9 --to "$work/there" --instant --overwrite
says "stop it first"
kill $sleeper
wait $sleeper 2>/dev/null
restore 0 --to "$work/there" --instant --overwrite
says "what was there is now $work/there$work/data/im/chat.db.before-restore-"
is mine "$(cat "there$work/data/im/other")" "a sibling"
is 1 "$(find "there$work/data/im" -name 'chat.db.before-restore-*' | wc -l)" "the old database aside"
is 1 "$(find "there$work/data/im" -name 'chat.db-wal.before-restore-*' | wc -l)" "its old log aside"
is False "$([ -e "there$work/data/im/chat.db-wal" ] && echo True || echo False)" "an old log beside the new database"
rm -rf --one-file-system there

echo "== a command that stays in the foreground"
restore 0 --to "$work/x" --instant --exec "echo \$\$ >'$work/up'; exec sleep 100" --ready "test -s '$work/up'" --json
is True "$(json '0 <= j["service_ready_ms"]')" "ready while it runs"
kill "$(cat up)"
rm -rf x up
restore 1 --to "$work/x" --instant --exec "exit 3" --ready "false"
says "exited with 3"
rm -rf x
restore 2 --to "$work/x" --ready true
says "--ready needs --exec"

echo "== modes"
restore 2 --to "$work/x" --instant=best
says "there are auto, blocks, files, fuse and ordered"
restore 2 --to "$work/x" --detach
says "needs --instant"
restore 2 --to "$work/x" /tmp
restore 0 --to "$work/x" --instant=ordered --json
is ordinary "$(json 'j["mode"]')" "mode"
rm -rf x
restore 0 --to "$work/x" --instant --exec "true || systemctl start prosody" --json
is ordinary "$(json 'j["mode"]')" "mode where nobody can hold the group"
says "cannot hold"
rm -rf x
restore 0 --to "$work/x" --instant --path "$(find "$work/data/im/up" -type f -size +1000k | head -1)" --json
is ordinary "$(json 'j["mode"]')" "mode of a single file"
rm -rf x

if [ -x "$slow_folder" ] && [ -e /dev/fuse ] && [[ $kinds == *blocks* ]]; then
	echo "== detached, seen, refused, joined"
	mkdir far
	"$slow_folder" --writable --rate-mb 3 --latency-us 500 vault far >ready &
	slow=$!
	until_ok grep -q ready ready
	vault=$work/far
	place=$work/fast$work/data/im
	restore 0 --to "$work/fast" --instant --detach --exec "$(probe "$work/fast")"
	says "service ready"
	run 3 status --json
	ours="[r for r in j['restores'] if r['target'] == '$place'][0]"
	is "at work" "$(json "$ours['state']")" "state"
	is True "$(json "0 < $ours['total_bytes'] >= $ours['filled_bytes']")" "how far it is"
	restore 9 --to "$work/fast" --instant --overwrite
	says "--resume"
	restore 9 --to "$work/fast" --overwrite
	sed "s|= $work/data|= $work/fast$work/data|; s|name = im-77|name = im-78|" conf >conf2
	run 1 -c conf2 backup --json
	is "False" "$(json '"ok" in [s["status"] for s in j["stores"]]')" "a backup of what is arriving"
	grep -qF "still being restored" out err || is there missing "why no backup was made"
	run 0 restore --vault "$vault" --key restore.key --resume "$place"
	says "COMPLETE"
	run 7 restore --abort "$place"
	nothing_left fast
	rm -rf --one-file-system fast

	echo "== given up"
	mkdir -p "fast$work/data/im"
	echo mine >"fast$work/data/im/other"
	restore 0 --to "$work/fast" --instant --detach --exec "$(probe "$work/fast")"
	(cd "$place" && exec sleep 100) &
	sleeper=$!
	until_ok works_in $sleeper "$place"
	run 9 restore --abort "$place"
	says "in use"
	kill $sleeper
	wait $sleeper 2>/dev/null
	run 0 restore --abort "$place"
	says "as it was before"
	is other "$(ls "$place")" "what stood there"
	is mine "$(cat "$place/other")" "a sibling"
	nothing_left fast
	touch "$place/writable" || is yes no "the folder can be written to again"
	rm -rf --one-file-system fast

	echo "== start traces"
	is True "$([ "$(find vault/traces/im-77 -type f | wc -l)" -ge 2 ] && echo True || echo False)" "traces in the vault"
	echo garbage >vault/traces/im-77/ffffffffffffffff-0000000000000000
	restore 0 --to "$work/fast" --instant --exec "$(probe "$work/fast")" --json
	is True "$(json 'j["instant"]["worker_starts"] == 1')" "the worker lived"
	nothing_left fast
	rm -rf --one-file-system fast

	echo "== the service manager's store holds it"
	/usr/bin/python3 - <<'END' >manager &
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(os.environ["work"] + "/notify")
print("bound", flush=True)
kept = []
while True:
    text, ancillary, *_ = s.recvmsg(4096, socket.CMSG_SPACE(4))
    for level, kind, data in ancillary:
        kept += list(array.array("i", data))
    print(text.decode().replace("\n", " "), len(kept), flush=True)
END
	manager=$!
	until_ok grep -q bound manager
	NOTIFY_SOCKET=$work/notify restore 0 --to "$work/fast" --instant --exec "true || systemctl start prosody" --json
	is blocks "$(json 'j["mode"]')" "mode where the manager holds it"
	until_ok grep -qx "FDSTORE=1 FDNAME=imvault-instant 1" manager
	nothing_left fast
else
	echo "not tried: a slow vault (no FUSE here)"
fi

[ "$failed" = 0 ] && echo "all of it holds"
exit $((failed > 0))
