#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of each fuzz corpus: small, valid, one per shape. What fuzzing found since lies
beside them as found-*. usage: make_corpus.py FOLDER"""
import base64
import io
import json
import os
import sqlite3
import struct
import sys
import tarfile
import tempfile

TOP = sys.argv[1]


def write(target, name, data):
    os.makedirs(f"{TOP}/{target}", exist_ok=True)
    with open(f"{TOP}/{target}/{name}", "wb") as file:
        file.write(data)


def ref(pack=1, offset=144, stored=100, slot=1, plain=4096):
    return struct.pack("<5I", pack, offset, stored, slot, plain)


def configs():
    write("config", "full", b"""; a comment
[node]
name = im-01
tier = im
rpo  = 5s
state = /var/lib/imvault
[vault]
url = /srv/backup/im
key = /etc/imvault/node.key
compression = 1
[store archive]
type  = sqlite
path  = /var/lib/prosody/prosody.sqlite
probe = SELECT count(*), max(sort_id) FROM prosodyarchive
timeout = 5s
[store uploads]
type     = files
path     = /var/lib/prosody/http_file_share
exclude = *.tmp
exclude = cache/*
priority = 2
[retention]
keep_last = 24
""")
    write("config", "unknown-key", b"[node]\nname = x\nsurprise = 1\n")


def packs():
    header = b"IMVPACK1" + struct.pack("<HHI", 1, 1, 1) + bytes(16) + bytes(16) + struct.pack("<II", 0, 0) + bytes(88)
    footer = b"IMVPEND1" + struct.pack("<QIIQ", len(header), 0, 0, 0)
    write("pack", "empty-pack", header + footer)
    row = struct.pack("<BB4I", 2, 0, 144, 100, 1, 4096)
    with_id = struct.pack("<BB4I", 1, 1, 244, 50, 2, 10) + bytes(range(32))
    write("pack", "listing", struct.pack("<H", 2) + row + with_id)
    write("entry", "stored", struct.pack("<H", 5) + b"\0hello")
    write("entry", "zstd", struct.pack("<H", 0) + b"\1" + bytes.fromhex("28b52ffd2000010000"))
    write("entry", "dict", struct.pack("<H", 0) + b"\2" + bytes.fromhex("28b52ffd2000010000"))


def index():
    body = struct.pack("<I", 1) + struct.pack("<I", 1000) + bytes(64)
    body += struct.pack("<I", 1) + bytes(range(32)) + ref(pack=0) + b"\1"
    write("index", "one", body)


def snapshots():
    table = struct.pack("<II", 1, 1000) + bytes(64)
    meta = {"kind": "snapshot", "node": "im-01", "seq": 1, "epoch": "00" * 8, "time": "2026-11-23T00:50:54.123Z",
            "packs": base64.b64encode(table).decode(), "stores": [{"name": "x", "type": "sqlite", "status": "ok", "packs": "AQAAAA=="}]}
    write("snapshot", "meta", json.dumps(meta).encode())


def keyrings():
    key = {"id": "00" * 8, "role": "restore", "name": "restore", "box": "09" + "00" * 31, "sign": "11" * 32, "status": "active",
           "created": "2026-11-23T00:50:54.123Z", "sealed": "00" * 120, "inherits": [{"id": "11" * 8, "sealed": "00" * 80}]}
    node = dict(key, role="node", node="im-01", status="revoked", last={"im-01": 3}, replaces="22" * 8)
    write("keyring", "two", json.dumps({"vault": "00" * 16, "generation": 2, "prev": "00" * 32, "created": "2026-11-23T00:50:54.123Z", "keys": [key, node]}).encode())


def leaves():
    run = struct.pack("<IHH", 0, 16, 0) + ref(plain=16 * 4096) + bytes(4)
    tail = struct.pack("<IHH", 16, 4, 2) + ref(plain=8 * 4096) + bytes(4)
    write("leafmap", "two-runs", bytes([3]) + struct.pack("<H", 20) + run + tail)


def segments():
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo(".")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        body = struct.pack("<QI", 10, 1) + struct.pack("<QIII", 0, 0, 0, 10)
        file = tarfile.TarInfo("file")
        file.size = len(body)
        file.pax_headers = {"mtime": "1.123456789", "SCHILY.xattr.user.a": "b"}
        tar.addfile(file, io.BytesIO(body))
        link = tarfile.TarInfo("link")
        link.type = tarfile.LNKTYPE
        link.linkname = "file"
        tar.addfile(link)
        symbolic = tarfile.TarInfo("symbolic")
        symbolic.type = tarfile.SYMTYPE
        symbolic.linkname = "file"
        tar.addfile(symbolic)
    write("segment", "small", struct.pack("<I", 1) + ref(plain=10) + bytes(32) + archive.getvalue())
    write("segment", "empty", struct.pack("<I", 0))


def wals():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/a.sqlite"
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA page_size = 512")
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (zeroblob(600))")
        with open(path + "-wal", "rb") as file:
            write("wal", "real", file.read())
        connection.close()


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def frame(data):
    """A zstd frame with its content size and one raw block."""
    return bytes.fromhex("28b52ffd") + b"\xa0" + struct.pack("<I", len(data)) + (len(data) << 3 | 1).to_bytes(3, "little") + data


def log_bodies():
    copied = varint(1) + varint(3) + varint(509) + varint(0)
    moved = varint(0) + varint(100) + varint(20) + varint(2) + varint(410) + varint(19)
    whole = varint(0) + varint(512)
    control = varint(3) + copied + varint(2) + varint(1) + moved + varint(1) + whole
    literals = b"abc" + b"de" + bytes(range(256)) * 2
    head = struct.pack("<6IQ", 1, 512, 1, 1, 0, 0xffffffff, 0)
    section = struct.pack("<IIqq16sII", 1, 64, 1000, 1001, bytes(16), 3, 0)
    block = struct.pack("<6I", 3, 3, len(control), len(literals), len(frame(control)), len(frame(literals)))
    write("logbody", "body", head + section + block + frame(control) + frame(literals))
    write("logbody", "no-change", struct.pack("<6IQ", 1, 512, 1, 0, 0, 0xffffffff, 0) + section[:40] + bytes(8))
    # What the target wraps: page size, sections, records of the first and of the others, pages, length of control.
    for sections, name in ((1, "wrapped"), (2, "wrapped-two")):
        write("logbody", name, struct.pack("<5BH", 0, sections - 1, 3, 3, 64, sections * len(control)) + control * sections + literals * sections)


def log_segments():
    meta = {"kind": "segment", "type": "sqlite", "first": 2, "last": 3, "part": 0, "final": True, "level": 0, "prev": "00" * 32,
            "points": [[1700000002000, 1700000002010], [1700000003000, 1700000003010]], "position": {"page_size": 4096, "pages": 3, "frame": 7},
            "snapshot_seq": 1, "host": "im", "version": "0", "bytes": 4096, "commits": 2,
            "log": {"epoch": "018bcfe5680000000001", "point": 1, "hash": "00" * 32, "complete_ms": 5, "sum": "00" * 16, "joined": True}}
    write("log", "fine", json.dumps(meta).encode())
    first = dict(meta, first=1, last=1, points=[[1700000001000, 1700000001010]],
                 began={"reason": "the follower was not running", "after": {"epoch": "018bcfe5670000000001", "point": 9, "hash": "11" * 32, "complete_ms": 5}})
    del first["prev"]
    write("log", "first", json.dumps(first).encode())
    write("log", "coarse", json.dumps(dict(meta, level=1, ends="22" * 32, points=meta["points"][1:], final=False)).encode())
    write("log", "name", b"logs/im-01/archive/018bcfe5680000000001/00001/00001000-00001002-018bcfe5680a-0000e-0123456789abcdef")


def tree_logs():
    def text(t):
        return struct.pack("<H", len(t)) + t

    def place(offset, data=None):
        return struct.pack("<Qq", offset, 1700000000000000000) + bytes(16) + (b"" if data is None else struct.pack("<I", len(data)) + data)

    end = b"\0" + struct.pack("<2Q", 1700000000000, 1700000000100)
    size, append, begin, folder, moved, gone, lost = (bytes([i]) for i in range(1, 8))
    meta = struct.pack("<I", 12) + b"not looked at"[:12]
    seeds = {
        "append": [append + text(b"im/a.log") + place(4, b"two\n"), end, append + text(b"im/a.log") + place(8, b"three\n"), end],
        "sizes": [size + text(b"im/a.log") + place(4), size + text(b"im/b.log") + place(0), end],
        "begin": [folder + text(b"room") + meta, begin + text(b"room/x.log") + meta, append + text(b"room/x.log") + place(0, b"x"), end],
        "rotation": [moved + text(b"a.log") + text(b"a.log.1"), begin + text(b"a.log") + meta, append + text(b"a.log") + place(0, b"new"),
                     moved + text(b"a.log.1") + text(b"a.log.2"), moved + text(b"a.log") + text(b"a.log.1"), gone + text(b"a.log.2"), end],
        "short-lived": [begin + text(b"a.log") + meta, append + text(b"a.log") + place(0, b"x"), moved + text(b"a.log") + text(b"b.log"),
                        gone + text(b"b.log"), lost + text(b"c.log") + text(b"why"), end],
    }
    for name, records in seeds.items():
        plain = b"".join(records)
        ends = records.count(end)
        write("files_log", name, b"R" + bytes([ends]) + plain)
        frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(plain)) + struct.pack("<I", 1 | len(plain) << 3)[:3] + plain
        write("files_log", name + "-body", struct.pack("<10I", 1, 7, ends, 1, 0, 0, 0, 0, len(plain), len(frame)) + frame)


for make in (configs, packs, index, snapshots, keyrings, leaves, segments, wals, log_bodies, log_segments, tree_logs):
    make()
