#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# With a node's complete disk in hand (its key, configuration and local state, and the whole vault, but not the
# live store) nothing of what was backed up can be read: not by the program, not by the independent reader,
# not by looking.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(mktemp -d /tmp/imvault-disk-XXXXXX)
trap 'rm -rf "$top"' EXIT
mark=Geheimnisvoll-$RANDOM$RANDOM-Wortlaut
mkdir -p "$top/live/uploads" "$top/disk"
"$IMVAULT_MAKE_STORE" --db "$top/live/chat.sqlite" --size 24 --seed 3 --wal >/dev/null
fill() { # rows full of the mark, often enough for any dictionary to want it
	sqlite3 "$top/live/chat.sqlite" "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < $1)
		INSERT INTO prosodyarchive (host, user, store, \"key\", \"when\", \"with\", type, value)
		SELECT 'h', 'u', 'archive', hex(randomblob(12)), i, 'w', 'xml', '<body>$mark ' || i || ' $mark</body>' FROM n" >/dev/null
}
fill 20000
for i in $(seq 50); do echo "$mark upload $i $mark" >"$top/live/uploads/$mark-$i"; done
"$IMVAULT" init --vault "$top/vault" --restore-key "$top/restore.key" --node-key "$top/disk/node.key" >/dev/null 2>&1 </dev/null
cat >"$top/disk/conf" <<END
[node]
name = n1
state = $top/disk/state
[vault]
url = $top/vault
key = $top/disk/node.key
[store chat]
type = sqlite
path = $top/live/chat.sqlite
[store uploads]
type = files
path = $top/live/uploads
END
"$IMVAULT" -c "$top/disk/conf" backup
fill 20000
echo "$mark more" >>"$top/live/uploads/$mark-1"
"$IMVAULT" -c "$top/disk/conf" backup
rm -rf "$top/live"
failed=0
fail() {
	echo "FAILED: $1"
	failed=1
}
# The restore key proves that the mark is in there and that looking would find it.
"$IMVAULT" restore --vault "$top/vault" --key "$top/restore.key" --to "$top/out" >/dev/null
grep -rqF "$mark" "$top/out" || fail "the mark was never backed up: this test proves nothing"
rm -rf "$top/out"
for where in disk vault; do
	if grep -rlaF -e "$mark" -e Geheimnisvoll "$top/$where"; then fail "content lies in the clear under $where"; fi
	find "$top/$where" -name "*$mark*" | grep . && fail "a file name lies in the clear under $where"
done
# Nor inside any blob of the local state, compressed or not.
/usr/bin/python3 - "$top/disk/state" "$mark" <<'END' || fail "content lies within the local state"
import glob, sqlite3, sys
import zstandard
mark, found, blobs = sys.argv[2].encode(), 0, 0
for path in glob.glob(sys.argv[1] + "/**/*.db", recursive=True):
    base = sqlite3.connect(path)
    for (table,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in base.execute(f"SELECT * FROM {table}"):
            for value in row:
                data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""
                blobs += 1
                views = [data]
                at = data.find(b"\x28\xb5\x2f\xfd")
                while at >= 0:
                    try:
                        views.append(zstandard.ZstdDecompressor().decompress(data[at:], max_output_size=1 << 26))
                    except zstandard.ZstdError:
                        pass
                    at = data.find(b"\x28\xb5\x2f\xfd", at + 1)
                found += any(b"Wortlaut" in view for view in views)
print(f"{blobs} values of the local state looked at")
sys.exit(1 if found or not blobs else 0)
END
for command in "restore --to $top/out" "export --output $top/out.tar"; do
	status=0
	# shellcheck disable=SC2086
	"$IMVAULT" $command --vault "$top/vault" --key "$top/disk/node.key" --node n1 >/dev/null 2>&1 || status=$?
	[ $status -eq 5 ] || fail "$command with the node key ended with $status instead of 5"
done
[ ! -e "$top/out" ] || [ -z "$(find "$top/out" -type f)" ] || fail "restore with the node key left files"
if /usr/bin/python3 "$here/../../scripts/rescue.py" --vault "$top/vault" --key "$top/disk/node.key" --node n1 restore --to "$top/rescued" >/dev/null 2>&1; then
	fail "the independent reader restored with a node key"
fi
[ $failed -eq 0 ] && echo "the node's disk opens nothing"
exit $failed
