#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# scripts/rescue.py must restore what imvault wrote, byte for byte as `imvault restore` does: SQLite and
# file stores, first and incremental snapshots, growth, VACUUM, a passphrase, a rotated key.
#
#   $IMVAULT   the program; $IMVAULT_MAKE_STORE (optional) makes a realistic archive.
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/../.."

/usr/bin/python3 -c 'import nacl, zstandard' 2>/dev/null || {
	echo "python3-nacl or python3-zstandard is not installed"
	exit 77
}
imvault=${IMVAULT:-build/cli/imvault}
imvault=$(realpath -e "$imvault")
rescue=$PWD/scripts/rescue.py
lines=$(wc -l <"$rescue")
[ "$lines" -lt 500 ] || { echo "FAILED: rescue.py has $lines lines; fewer than 500 are promised"; exit 1; }
/usr/bin/python3 tests/integration/rescue_hostile.py "$rescue"

work=$(mktemp -d "${TMPDIR:-/tmp}/imvault-test-rescue.XXXXXX")
trap 'chmod -R u+rwx "$work" 2>/dev/null; rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; exit 1; }
sql() { sqlite3 -batch -init /dev/null "$@" </dev/null >/dev/null; }

node=$work/node tree=$work/node/srv/uploads db=$work/node/srv/messages.sqlite
mkdir -p "$tree/sub/empty" "$work/safe"
printf 'a secret phrase\n' >"$work/safe/phrase"
key=(--key "$work/safe/restore.key" --passphrase-file "$work/safe/phrase")

make_database() {
	if [ -n "${IMVAULT_MAKE_STORE-}" ]; then
		"$IMVAULT_MAKE_STORE" --db "$db" --size 12 >/dev/null
	else
		sql "$db" "PRAGMA journal_mode = WAL; CREATE TABLE m (id INTEGER PRIMARY KEY, t TEXT);
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
			INSERT INTO m (t) SELECT hex(randomblob(20)) || ' message ' || i FROM n"
	fi
	sql "$db" "CREATE TABLE extra (id INTEGER PRIMARY KEY, t TEXT)"
}

grow() {
	sql "$db" "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
		INSERT INTO extra (t) SELECT hex(randomblob(200)) FROM n"
}

make_tree() {
	head -c 3000000 /dev/urandom >"$tree/media.bin"
	seq 100000 >"$tree/text"
	: >"$tree/empty"
	for i in $(seq 60); do echo "small file $i" >"$tree/sub/small-$i"; done
	ln "$tree/text" "$tree/sub/hard link"
	ln -s ../text "$tree/sub/soft"
	ln -s /nowhere/at/all "$tree/dangling"
	mkfifo -m 620 "$tree/pipe"
	truncate -s 5M "$tree/sparse"
	printf hole | dd of="$tree/sparse" bs=1 seek=2500000 conv=notrunc status=none
	touch "$tree/名字 with space" "$tree/"$'new\nline' "$tree/"$'not-utf8-\377'
	local long
	long=$(printf 'x%.0s' $(seq 200))
	mkdir -p "$tree/$long/$long"
	echo deep >"$tree/$long/$long/$long"
	setfattr -n user.note -v $'binary\001\377' "$tree/text" 2>/dev/null || true
	setfattr -n user.folder -v yes "$tree/sub" 2>/dev/null || true
	setfattr -n 'user.odd name=%41é' -v 1 "$tree/text" 2>/dev/null || true
	setfacl -m u:daemon:rx,m::rwx "$tree/media.bin" 2>/dev/null || true
	setfacl -d -m g:daemon:rwx "$tree/sub" 2>/dev/null || true
	chmod 4711 "$tree/empty"
	touch -h -d '1969-12-31 23:59:58.25 UTC' "$tree/dangling"
	touch -d '1960-01-02 03:04:05.123456789 UTC' "$tree/sub/small-1"
	touch -d '2038-03-04 05:06:07.987654321 UTC' "$tree/sub/empty"
	chmod 500 "$tree/sub/empty"
	[ "$(id -u)" != 0 ] || chown daemon:mail "$tree/sub/small-2" "$tree/sub/soft"
}

# Everything that can be seen of a tree, one line each.
describe() (
	cd "$1"
	find . -printf '%P|%y|%m|%U:%G|%T@|%l|%n' \( -type d -printf '|\n' -o -printf '|%s\n' \) | sort
	find . -type f -print0 | sort -z | xargs -0 sha256sum
	getfattr -dhR -m - -e hex . 2>/dev/null
)

init=(init --vault "$work/vault" --restore-key "$work/safe/restore.key" --node-key "$node/node.key")
"$imvault" "${init[@]}" --passphrase-file "$work/safe/phrase" </dev/null >/dev/null
cat >"$node/imvault.conf" <<END
[node]
name = im-01
state = $node/state
[vault]
url = $work/vault
key = $node/node.key
[store messages]
type = sqlite
path = $db
[store uploads]
type = files
path = $tree
END
backup() { "$imvault" -c "$node/imvault.conf" backup "$@" </dev/null || fail "backup (exit $?)"; }

make_database
make_tree
backup
grow 500
echo more >>"$tree/text"
rm "$tree/sub/small-3"
backup
sql "$db" "DELETE FROM extra WHERE id % 3 = 0"
sql "$db" "VACUUM"
mv "$tree/media.bin" "$tree/renamed.bin"
backup
rm -rf "$node/state"           # lost local state: the next run is no increment of the one before
grow 50
backup --full

"$rescue" --vault "$work/vault" "${key[@]}" list
for seq in 1 2 3 4; do
	"$imvault" restore --vault "$work/vault" "${key[@]}" --node im-01 --at "$seq" \
		--to "$work/theirs" </dev/null >/dev/null || fail "imvault restore --at $seq (exit $?)"
	"$rescue" --vault "$work/vault" "${key[@]}" --node im-01 restore --snapshot "$seq" \
		--to "$work/ours" || fail "rescue.py --snapshot $seq (exit $?)"
	cmp "$work/theirs$db" "$work/ours$db" || fail "databases of snapshot $seq differ"
	for who in theirs ours; do
		describe "$work/$who$tree" >"$work/$who.txt"
		stat -c '%a %U:%G %.9Y %s' "$work/$who$db" >>"$work/$who.txt"
	done
	diff "$work/theirs.txt" "$work/ours.txt" || fail "snapshot $seq: metadata or files differ"
	[ "$(sqlite3 "$work/ours$db" 'PRAGMA integrity_check')" = ok ] || fail "integrity_check of $seq"
	chmod -R u+rwx "$work/ours" "$work/theirs"
	rm -rf "$work/theirs"
	[ "$seq" = 4 ] || rm -rf "$work/ours"
	echo "ok   snapshot $seq: rescue.py and imvault restore agree, $(wc -l <"$work/ours.txt") lines"
done
sqlite3 "$work/ours$db" .dump | sha256sum >"$work/ours.sum"
sqlite3 "$db" .dump | sha256sum >"$work/live.sum"
cmp "$work/ours.sum" "$work/live.sum" || fail "the last snapshot is not what is live"
describe "$tree" >"$work/live.txt"
sed '$d' "$work/ours.txt" | diff "$work/live.txt" - || fail "the tree is not what is live"
echo "ok   the last snapshot equals the live stores"

# The old restore key is rotated away; the new one opens everything written before.
old=$(/usr/bin/python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["id"])' "$work/safe/restore.key")
"$imvault" key rotate "$old" --vault "$work/vault" "${key[@]}" --out "$work/safe/new.key" \
	--new-passphrase-file "$work/safe/phrase" </dev/null >/dev/null || fail "key rotate (exit $?)"
chmod -R u+rwx "$work/ours"
rm -rf "$work/ours"
grow 20
backup
for seq in 1 5; do
	"$rescue" --vault "$work/vault" --key "$work/safe/new.key" --passphrase-file "$work/safe/phrase" \
		restore --snapshot "$seq" --store messages --to "$work/ours" || fail "rotated key, $seq (exit $?)"
	[ "$(sqlite3 "$work/ours$db" 'PRAGMA integrity_check')" = ok ] || fail "integrity_check of $seq"
	rm -rf "$work/ours"
done
echo "ok   a rotated restore key reads old and new snapshots"

code=0
"$rescue" --vault "$work/vault" --key "$node/node.key" restore --to "$work/ours" 2>"$work/said" || code=$?
[ "$code" = 5 ] || fail "the node key is not refused: exit $code"
echo "ok   the node key cannot restore"
