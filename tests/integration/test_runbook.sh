#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# imvault runbook: makes a node, loses it in each of the ways the page is about, and runs every command of
# the page as it stands there. A block that nothing here has run fails the test.
#
#   $IMVAULT, $IMVAULT_MAKE_STORE
set -uo pipefail
export LC_ALL=C.UTF-8
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/integration/lib.sh
. "$here/lib.sh"
imvault=$(realpath -e "${IMVAULT:-build/cli/imvault}")
make_store=$(realpath -e "${IMVAULT_MAKE_STORE:-build/tests/tools/imvault-make-store}")
command -v sqlite3 >/dev/null || { echo "skipped: the page uses sqlite3, which is not installed"; exit 77; }
# no other mount namespace, such as a drill's, shall have a copy of an instant restore's mounts and keep them busy
[ "$(id -u)" != 0 ] || [ -n "${apart-}" ] || apart=yes exec unshare --mount --propagation private bash "$0" "$@"
work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-runbook.XXXXXX")
export work HOME=$work/home
unset XDG_STATE_HOME NOTIFY_SOCKET
export TSAN_OPTIONS=${TSAN_OPTIONS:-}:die_after_fork=0
clean_up() {
	local place
	"$imvault" restore --abort "$work/d/im" >/dev/null 2>&1
	awk -v w="$work/" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r place; do
		umount -l "$place"
	done
	chattr -R -f -i "$work"
	chmod -R u+rwx "$work"
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT
cd "$work" || exit 1
mkdir bin
ln -s "$imvault" bin/imvault
live=$work/live
data="da'ta \$(touch pwned) \`touch pwned\` \"x\" & co" # names are data, on the page as in its commands
ln -s "$live/$data" d
db=$live/$data/im/chat.db

rows() { sqlite3 -readonly "${1:-$db}" 'SELECT count(*) FROM prosodyarchive'; }
append() { "$make_store" --db "$db" --append "$1" >/dev/null; }
follow() { "$imvault" -c live/etc/imvault.conf follow --once >out 2>err </dev/null || is 0 $? "a round of the follower"; }
tree() { (cd "$1" && find . -type f -exec sha256sum {} + | sort); }
has() { is yes "$(grep -qF -- "$2" "$1" && echo yes || echo no)" "\"$2\" in $1"; }
has_not() { is no "$(grep -qF -- "$2" "$1" && echo yes || echo no)" "\"$2\" in $1"; }

# scenario NAME FIELD: of the answer in out
scenario() { json "[s['$2'] for s in j['scenarios'] if s['name'] == '$1'][0]"; }

# page NAME ARGUMENTS...: the page in both forms as pages/NAME.md and .html; its blocks in pages/NAME/
page() {
	local name=$1
	shift
	run 0 "$@" runbook -o "pages/$name.md" --json
	"$imvault" "$@" runbook -o "pages/$name.html" --quiet </dev/null 2>err || is 0 $? "the same as HTML"
	/usr/bin/python3 "$here/runbook_blocks.py" "pages/$name.md" "pages/$name" >"pages/$name.list" || is 0 $? "the blocks of $name.md"
	/usr/bin/python3 "$here/runbook_blocks.py" "pages/$name.html" "pages/$name-html" >"pages/$name-html.list" ||
		is 0 $? "the blocks of $name.html"
	is "" "$(diff -r --exclude=system "pages/$name" "pages/$name-html"
		diff "pages/$name.list" "pages/$name-html.list")" "the commands of both forms of $name"
	for block in "pages/$name"/*.sh; do
		bash -n "$block" || is 0 $? "the syntax of $block"
	done
}
# fresh: the node as it was when the page was made
fresh() {
	"$imvault" restore --abort "$live/$data/im" >/dev/null 2>&1
	chattr -R -f -i live look 2>/dev/null
	chmod -R u+rwx live look copy new-vault 2>/dev/null
	rm -rf --one-file-system live look copy new-vault new.key
	cp -a saved live
	key=$work/restore.key
}
# block CODE SCENE PART [NUMBER]: runs the NUMBERth block of that part, or all of them; what it says is in out and err
block() {
	local code n found=0 number
	while IFS=$'\t' read -r number _; do
		found=$((found + 1))
		[ "${4:-$found}" = $found ] || continue
		code=0
		: >>"pages/$page/$number.run"
		: >>"pages/$page/1.run"
		PATH=$work/bin:$PATH bash -e -c '. "$1"; KEY=$3 LOOK=$work/look COPY=$work/copy NEW_KEY=$work/new.key NEW_VAULT=$work/new-vault; . "$2"' \
			block "pages/$page/1.sh" "pages/$page/$number.sh" "$key" </dev/null >out 2>err || code=$?
		is "$1" "$code" "exit of block $number ($2, $3): $(cat "pages/$page/$number.sh")"
	done < <(awk -F '\t' -v s="$2" -v p="$3" '$2 == s && $3 == p' "pages/$page.list")
	n=$found
	[ "$n" -gt 0 ] || is "a block" none "$2, $3"
}
# of_system TEXT: a block that changes the machine as such is there, and marked so; it is not run
of_system() {
	local file number found=no
	for file in "pages/$page"/*.sh; do
		number=$(basename "$file" .sh)
		if [ "$(cat "$file")" = "$1" ] && grep -qx "$number" "pages/$page-html/system"; then
			found=yes
			: >>"pages/$page/$number.run"
			: >>"pages/$page/$number.system"
		fi
	done
	is yes $found "the block $1"
}
all_were_run() {
	local file
	is "$(sort "pages/$page-html/system")" "$(cd "pages/$page" && printf '%s\n' *.system | cut -d. -f1 | sort)" "no others are marked so"
	for file in "pages/$page"/*.sh; do
		[ -e "${file%.sh}.run" ] || is run "not run" "$page: $(cat "$file")"
	done
}
stopped_and_started() {
	is "yes yes" "$([ -e "$live/stopped" ] && echo yes) $([ -e "$live/started" ] && echo yes)" "the server was stopped and started"
	rm -f "$live/stopped" "$live/started"
}

# --- a node, its history, its pages ---

mkdir -p "live/$data/im/up" live/etc pages
"$make_store" "$db" --size 3 --wal >/dev/null
for i in 1 2 3 4; do head -c 40000 /dev/urandom >"d/im/up/file $i"; done
cat >live/etc/imvault.conf <<END
[node]
name = im-01
tier = im
rpo = 5m
state = $live/state
[vault]
url = $live/vault
key = $live/etc/node.key
[store archive]
type = sqlite
path = $db
[store up]
type = files
path = $live/$data/im/up
[store etc]
type = files
path = $live/etc
exclude = *.key
exclude = *.key.lost
exclude = secret
[alert]
command = true s3cr3t-command
webhook = http://127.0.0.1:9/s3cr3t-hook
mail = a@example.org
smtp = smtp://127.0.0.1:9
from = b@example.org
credentials = $live/etc/secret
[runbook]
contact = Li Wei, on call, +86 10 5555
contact = <script>alert(1)</script> \`id\` [x](javascript:y) *
restore_key = USB stick in the safe, room 204
packages = prosody lua-dbi-sqlite3
stop = touch "$live/stopped"
start = touch '$live/started' # 'it was $HOME'
note = The landlord has the key of room 204
END
echo 'user:s3cr3t-mail' >live/etc/secret
chmod 600 live/etc/secret
echo 's3cr3t-phrase' >phrase
run 0 init --vault live/vault --restore-key restore.key --node-key live/etc/node.key --node im-01
conf=(-c live/etc/imvault.conf)
run 7 "${conf[@]}" runbook -o -
says "no snapshot yet"
run 0 "${conf[@]}" backup
find live/vault/packs -type f | sort >packs
append 50
follow

echo "== before anything was proved"
page early "${conf[@]}"
has pages/early.md "Never tried with all of today's stores. This tries it: \`imvault drill\`"
has pages/early.md "No record shows yet that a restore key opened this vault"
has pages/early.md "**To fill in:** its passphrase is kept here: ______"
is "its passphrase" "$(json 'j["gaps"][0]' | grep -o 'its passphrase')" "the only gap"
is 1 "$(json 'len(j["gaps"])')" "gaps"
is True "$(json 'all(s["last_worked"] is None for s in j["scenarios"])')" "nothing has worked yet"
is 1 "$(awk '/^AT=/' pages/early/1.sh | wc -l)" "an example instant"
page=early
mv live kept # the follower knows its database by the file, not by what is in it
cp -a kept saved
fresh
block 0 "A key is lost" "A restore key is lost, and there is another one"
run 0 list --vault live/vault --key new.key
run 2 "${conf[@]}" runbook -o - --json
says "needs --output"
has_not pages/early.md "systemd-run"

echo "== what drills prove"
rm -rf live saved
mv kept live
drill() { run "$1" drill --vault live/vault --key restore.key --scratch "$work" "${@:2}"; }
drill 0
drill 0 --at 1
drill 0 --store up # proves nothing of a lost machine
run 0 key add --role restore --name 'Li Wei' --vault live/vault --key restore.key --out second.key
echo more >"d/im/up/small"
head -c 600000 /dev/urandom >"d/im/up/second"
run 0 "${conf[@]}" backup
then_rows=$(rows)
tree d/im/up >then_tree
append 70
follow
now_rows=$(rows)
page all "${conf[@]}"
page=all
is "2 2 2 3 " "$(grep -o 'in drill [0-9]*' pages/all.md | cut -d' ' -f3 | tr '\n' ' ')" "drills that prove machine, database, deletion, key"
for name in machine_lost database_damaged deleted_by_mistake key_lost; do
	is 20 "$(scenario $name last_worked | cut -c-2)" "$name has worked"
done
is None "$(scenario machine_lost_instant last_worked)" "what no drill showed"
is None "$(scenario vault_damaged last_worked)" "what no drill showed"
is True "$(json "all(s['forecast_p95_ms'] >= s['forecast_p50_ms'] > 0 for s in j['scenarios'] if s['name'] != 'key_lost')")" "forecasts"
is None "$(scenario key_lost forecast_p50_ms)" "no data is moved"
is "im-01 $work/pages/all.md" "$(json 'j["node"], __import__("os").path.realpath(j["output"])' | tr -d "(),'")" "the answer"
for words in "Last worked: $(date -u +%Y-)" " in drill 2 on " "(target 15 min: met)" "Li Wei, on call, +86 10 5555" "hardly more than" \
	"Forecast of this store alone" "USB stick in the safe, room 204" \
	"Back to any instant from" "Back to its snapshots from" "(tier im)" "At most the last 5 min may be lost" \
	"\\<script\\>alert(1)\\</script\\> \\\`id\\\` \\[x\\](javascript:y) \\*" "came back with the store \`etc\`" "The landlord has the key"; do
	has pages/all.md "$words"
done
has_not pages/all.html "<script"
has pages/all.html "&lt;script&gt;alert(1)&lt;/script&gt; \`id\` [x](javascript:y) *"
secret=$(/usr/bin/python3 -c 'import json, sys; print("\n".join(json.load(open(f))["secret"] for f in sys.argv[1:]))' \
	restore.key second.key live/etc/node.key)
is 3 "$(wc -l <<<"$secret")" "secrets of three keys"
for words in s3cr3t $secret; do
	for file in pages/*.md pages/*.html; do has_not "$file" "$words"; done
done
cp -a live saved

echo "== the machine is lost"
scene="The machine is lost"
lose() {
	fresh
	rm -rf "live/$data" live/etc live/state
}
back() {
	stopped_and_started
	is "$now_rows" "$(rows)" "messages"
	is "" "$(tree d/im/up | diff then_tree -)" "uploads"
	is "" "$(diff saved/etc/imvault.conf live/etc/imvault.conf)" "the configuration"
}
lose
touch "$live/stopped"
block 0 "$scene" "3. What is there, and how long will it take?"
says "forecast:"
is no "$([ -e d ] && echo yes || echo no)" "something was written"
block 0 "$scene" "1. A machine with the server installed and stopped" 2
block 0 "$scene" "4. Everything back to its place" 1
back
block 0 "$scene" "5. Protect the new machine" 1
block 0 "$scene" "5. Protect the new machine" 2
block 0 "$scene" "5. Protect the new machine" 4
says "im-01"
run 0 restore --vault live/vault --key restore.key --to "$work/look"
is "$now_rows" "$(rows "look$db")" "messages in the backup of the new machine"
lose
mkdir -p live/etc "live/$data/im/up"
echo fresh >live/etc/of-the-package
block 2 "$scene" "4. Everything back to its place" 1
touch "$live/stopped"
block 0 "$scene" "4. Everything back to its place" 2
back
is fresh "$(cat live/etc.before-restore-*/of-the-package)" "what was in the way"
lose
touch "$live/stopped"
block 0 "$scene" "4, the fast way"
back
of_system "apt-get update && apt-get install -y prosody lua-dbi-sqlite3"
of_system 'git clone "$SOURCE" imvault && cd imvault && scripts/deps build
meson setup build && ninja -C build && meson install -C build'
of_system "systemctl start imvault-follow"

echo "== a database is damaged"
scene="A database is damaged" part="The database of archive"
fresh
head -c 200000 /dev/urandom | dd of="$db" bs=4096 seek=20 conv=notrunc status=none
block 0 "$scene" "$part" 1
block 0 "$scene" "$part" 2
stopped_and_started
is "ok $now_rows" "$(sqlite3 "$db" 'PRAGMA integrity_check') $(rows)" "the newest state"
is 1 "$(find d/im/ -name 'chat.db.before-restore-*' | wc -l)" "the damaged one aside"
touch "$live/stopped"
block 0 "$scene" "$part" 3
stopped_and_started
is "ok $then_rows" "$(sqlite3 "$db" 'PRAGMA integrity_check') $(rows)" "the newest good instant"

echo "== something was deleted by mistake"
scene="Something was deleted by mistake"
fresh
sqlite3 "$db" 'DELETE FROM prosodyarchive WHERE sort_id % 2'
rm d/im/up/second
echo changed >d/im/up/small
sed -i '/^note/d' live/etc/imvault.conf
run 0 "${conf[@]}" backup
block 0 "$scene" "Something in archive" 1
has out prosodyarchive
is "$then_rows" "$(rows "look/archive$db")" "messages before it"
block 0 "$scene" "Something in archive" 2
block 0 "$scene" "Something in archive" 3
stopped_and_started
is "$then_rows" "$(rows)" "messages"
block 0 "$scene" "Something in up" 1
has out second
block 0 "$scene" "Something in up" 2
is "changed" "$(cat d/im/up/small)" "what is there now"
is "" "$(tree d/im/up | diff then_tree - | grep '^<' | grep -v small)" "what was missing"
block 0 "$scene" "Something in up" 3
block 0 "$scene" "Something in up" 4
stopped_and_started
is "" "$(tree d/im/up | diff then_tree -)" "uploads"
block 0 "$scene" "Something in etc"
stopped_and_started
is "" "$(diff saved/etc/imvault.conf live/etc/imvault.conf)" "the configuration"

echo "== the vault is partly damaged"
scene="The vault is partly damaged"
harm() {
	fresh
	pack=$(find live/vault/packs -type f -size +400k | sort | comm -13 packs - | head -1)
	chmod u+w "$pack"
	/usr/bin/python3 -c 'import sys; p = sys.argv[1]; d = bytearray(open(p, "rb").read()); d[len(d) // 2] ^= 1; open(p, "wb").write(d)' "$pack"
}
harm
block 0 "$scene" "1. Copy it before you do anything else"
is "" "$(diff -r live/vault copy)" "the copy"
block 6 "$scene" "2. What is harmed?"
cat out err >log
says "second"
: >log
block 0 "$scene" "3. The server lives"
run 0 restore --vault new-vault --key new.key --to "$work/look"
is "" "$(tree "look$live/$data/im/up" | diff then_tree -)" "uploads in the new vault"
harm
rm -rf "live/$data" live/etc live/state
block 6 "$scene" "4. The server is lost, too" 1
is "$now_rows" "$(rows)" "messages, though the vault is damaged"
is "" "$(tree d/im/up | diff then_tree - | grep '^<' | grep -v second)" "all other uploads"
block 0 "$scene" "4. The server is lost, too" 2
block 0 "$scene" "4. The server is lost, too" 3
block 0 "$scene" "4. The server is lost, too" 4
is 4 "$(find d/im/up/ -type f | wc -l)" "uploads of the older snapshot"
rm -f live/started

echo "== a key is lost"
scene="A key is lost"
fresh
rm live/etc/node.key
block 0 "$scene" "The node key is lost or stolen" 1
block 0 "$scene" "The node key is lost or stolen" 2
fresh
block 0 "$scene" "The node key is lost or stolen" 1 # stolen: the file is still there
is yes "$([ -s live/etc/node.key.lost ] && echo yes)" "the old key's file"
other="A restore key is lost, and there is another one"
id() { /usr/bin/python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["id"])' "$1"; }
fresh
block 0 "$scene" "$other" 1
run 0 restore --vault live/vault --key new.key --to "$work/look"
is "$now_rows" "$(rows "look$db")" "messages with the new key"
# The first one, with the one that was added by it; and the other way round, where the message has what to do instead.
revoke() { # revoke CODE LOST LEFT
	fresh
	key=$work/$3.key
	block 0 "$scene" "$other" 1
	block "$1" "$scene" "$other" $((1 + $(grep -l "key revoke" $(awk -F '\t' -v p="$other" '$3 == p { print "pages/all/" $1 ".sh" }' pages/all.list) |
		grep -n -F "$(grep -l "key revoke $(id "$2.key")" pages/all/*.sh)" | cut -d: -f1)))
}
revoke 0 restore second
run 5 list --vault live/vault --key restore.key
run 0 restore --vault live/vault --key new.key --to "$work/look"
is "$now_rows" "$(rows "look$db")" "messages with the new key"
revoke 2 second restore
says "rotate"
fresh
block 0 "$scene" "No restore key is left"
run 0 restore --vault new-vault --key new.key --to "$work/look"
is "$now_rows" "$(rows "look$db")" "messages in the new vault"
all_were_run

echo "== from the vault alone, and what the configuration leaves open"
fresh
page vault --vault live/vault --key restore.key --node im-01
is "" "$(sed "s| -c $live/etc/imvault.conf||" pages/all/*.sh | diff - <(cat pages/vault/*.sh))" "the commands, but for -c"
has pages/vault.md "as the node's last snapshot has them"
run 2 runbook --vault live/vault --key live/etc/node.key -o -
says "the node's file with -c FILE"
run 7 runbook --vault live/vault --key restore.key --node im-02 -o -
sed -i '/^start/d; s/^stop.*/stop = systemctl stop prosody/; /^contact/d; /^note/d; /^packages/d' live/etc/imvault.conf
page open "${conf[@]}"
is 4 "$(json 'len([g for g in j["gaps"] if "[runbook]" in g])')" "gaps"
has pages/open.md "Then start the server yourself."
has pages/open.md "who to call: ______"
is "" "$(cat pages/open/*.sh | grep -e --exec -e apt-get)" "commands nobody named"
sed -i 's/^stop.*/start = systemctl start prosody/' live/etc/imvault.conf
page managed "${conf[@]}"
page=managed
of_system "systemd-run --pipe --wait --unit imvault-instant -p FileDescriptorStoreMax=1 \\
        -p KillMode=process -p Restart=on-abnormal -p RestartSec=infinity \\
        /usr/local/bin/imvault restore --vault \"\$VAULT\" --key \"\$KEY\" --node im-01 --instant --overwrite \\
        --reason 'machine lost' \\
        --exec 'systemctl start prosody'"

echo "== a try that failed since"
harm
drill 6
page failed "${conf[@]}"
has pages/failed.md "**Attention:** the last try FAILED on $(date -u +%Y-)"
has pages/failed.md "ended with damaged"
is 20 "$(scenario vault_damaged last_worked | cut -c-2)" "what came back from a damaged vault"

is "" "$(find . -name pwned)" "a name became a command"
[ "$failed" = 0 ] && echo "all of it holds ($count checks)"
exit $((failed > 0))
