#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Drills from the command line: answers, exit codes, records, limits, and what stays behind.
#   $IMVAULT   the program
set -uo pipefail
export LC_ALL=C.UTF-8
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
imvault=$(realpath -e "${IMVAULT:-build/cli/imvault}")
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-drill.XXXXXX")
trap 'rm -rf "$work"' EXIT
export HOME=$work/home
unset XDG_STATE_HOME
cd "$work" || exit 1
mkdir data scratch theirs
for i in 1 2 3; do add_row "$work/data/a.sqlite" "$i"; done
echo upload >data/file
cat >conf <<END
[node]
name = im-01
rto = 10m
state = $work/state
[vault]
url = $work/vault
key = $work/node.key
[store a]
type = sqlite
path = $work/data/a.sqlite
probe = SELECT count(*) FROM t
[store data]
type = files
path = $work/data
END
sed "s,node.key,restore.key,; \$a [drill]\nscratch = $work/scratch\nspace = 1G" conf >drill.conf
run 0 init --vault vault --restore-key restore.key --node-key node.key --node im-01
key=(--vault vault --key restore.key)
drill() { run "$1" drill "${key[@]}" --scratch scratch "${@:2}"; }
records() { find vault/drills -type f 2>/dev/null | wc -l; }
empty() { is "" "$(ls -A scratch)" "the scratch folder"; }

drill 7 --json
is 0 "$(records)" "records of a drill without a snapshot"
run 0 -c conf backup
before=$(find data -type f -exec sha256sum {} + | sort)

drill 0 --json --operator "night shift" --reason test
is passed "$(json 'j["verdict"]')" verdict
is True "$(json 'j["rto_met"] and j["rto_ms"] == 600000')" "the target"
is True "$(json 'j["service_ready_ms"] >= j["data_complete_ms"] >= 0')" "the clocks"
is True "$(json 'all(c["ok"] for c in j["checks"]) and {c.get("store") for c in j["checks"]} >= {"a", "data"}')" "the checks"
is True "$(json '"integrity_check ok, 1 probe equal" in str(j["checks"])')" "the full check"
is True "$(json 'j["forecast_p50_ms"] > 0 and j["forecast_p95_ms"] >= j["forecast_p50_ms"]')" "the forecast"
is True "$(json 'all("scratch" in s["path"] for s in j["stores"])')" "the paths"
is True "$(json '__import__("os").path.exists("vault/" + j["record"])')" "the record in the vault"
empty
is "$before" "$(find data -type f -exec sha256sum {} + | sort)" "what is protected"

# The configuration of a drill host.
run 0 -c drill.conf drill --json --at random
is random "$(json 'j["chosen"]')" "how it was chosen"
is True "$(json 'j["at"][:2] == "20"')" "what was chosen"
sed -i 's/space = 1G/space = 1K/' drill.conf
run 8 -c drill.conf drill
says "space = 1.0 kB"
empty

# A drill host has a restore key of its own; when that is revoked, what it recorded stays, and says so.
run 0 key add --role restore --name drill-host --out drill.key "${key[@]}"
run 0 drill --vault vault --key drill.key --scratch scratch --json

# Targets.
drill 10 --rto 1ms
says "recovered after"
sed 's/^rto = 10m/rpo = 1ms/' conf >rpo.conf
run 0 -c rpo.conf backup
sleep 0.1
drill 10 --json
is False "$(json 'j["rpo_met"]')" "the verdict for rpo"
is 1 "$(json 'j["rpo_target_ms"]')" "its target"
run 0 -c conf backup

# A file that was damaged in the vault, and one that was lost.
cp -r vault bad
pack=$(find bad/packs -type f -printf '%s %p\n' | sort -rn | head -1 | cut -d' ' -f2)
chmod u+w "$pack"
/usr/bin/python3 -c 'import sys; p = sys.argv[1]; d = bytearray(open(p, "rb").read()); d[len(d) // 3] ^= 1; open(p, "wb").write(d)' "$pack"
run 6 drill --vault bad --key restore.key --scratch scratch
empty

# Kept, if asked for.
drill 0 --keep --json
kept=$(json 'j["kept"]')
is upload "$(cat "$kept/root$work/data/file")" "what was kept"
drill 0
is upload "$(cat "$kept/root$work/data/file")" "what was kept, after another drill"
rm -rf "$kept"

# Mistakes.
drill 2 --cpus none
says "--cpus none"
drill 7 --at 99
drill 7 --at $'ff\xff' # what is no text is made printable on its way out
drill 0 --at 2 --json # a snapshot is as old as it is
is asked "$(json 'j["chosen"]')" "how it was chosen"
drill 2 --ready true
says "--ready needs --exec"
run 2 drill "${key[@]}" --scratch /nonexistent
says /nonexistent
run 5 drill --vault vault --key node.key --scratch scratch
says "restore key"
drill 2 --instant=never
run 2 drill-service
says "run by imvault drill only"
if unshare --mount --net --pid --fork true 2>/dev/null; then
	drill 0 --exec "test \"\$IMVAULT_DRILL\" = 1 && sqlite3 '$work/data/a.sqlite' 'INSERT INTO t VALUES (4)' && echo outside >/etc/imvault-test-drill" --json
	is 0 "$(json 'j["exec_status"]')" "the service's start"
	is "$before" "$(find data -type f -exec sha256sum {} + | sort)" "what is protected, after a service wrote"
	is no "$([ -e /etc/imvault-test-drill ] && echo yes || echo no)" "a file outside of the sandbox"
	drill 1 --exec "echo last words; exit 3"
	says "last words"
	empty
	# Somebody else has no namespaces, but his drills leave nothing either.
	chmod 755 "$work"
	cp -r vault restore.key scratch "$imvault" theirs/
	chown -R nobody theirs
	nobody() { runuser -u nobody -- ./imvault drill --vault vault --key restore.key --scratch scratch "$@" </dev/null >../out 2>../err; }
	cd theirs || exit 1
	nobody --instant --json
	is 0 "$?" "exit of another user's drill"
	nobody --exec true
	is 2 "$?" "exit of another user's drill with a service"
	cd ..
	says "needs root"
	is "" "$(ls -A theirs/scratch)" "another user's scratch folder"
else
	echo "not tried: a service in a sandbox, which needs root and namespaces"
	[ "$(id -u)" = 0 ] || drill 2 --exec true
fi

# A real restore is history, too; what is removed from the history is noticed.
n=$(records)
run 0 restore "${key[@]}" --to back
is $((n + 1)) "$(records)" "records after a restore"
run 0 restore "${key[@]}" --to back2 --dry-run
is $((n + 1)) "$(records)" "records after a dry run"
run 0 verify "${key[@]}"
first=$(find vault/drills -type f | sort | head -1)
rm -f "$first"
run 6 verify "${key[@]}"
says "missing or altered"

[ "$failed" = 0 ] && echo "$count checks passed"
exit $((failed > 0))
