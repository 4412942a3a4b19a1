#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/rescue.py against vaults made here, from docs/FORMAT.md and without imvault.

A sound one must come back byte for byte; damaged, forged and hostile ones must be refused with the
promised exit code, and nothing outside the target may ever change. Argument: the rescue.py to test.
"""
import base64, hashlib, io, json, os, shutil, sqlite3, stat, struct, subprocess, sys, tarfile, tempfile

from nacl import bindings as na
import zstandard

RESCUE, NODE = os.path.abspath(sys.argv[1]), "im-01"
FILE_CHUNK, EXTENT, LEAF, SEGMENT, DICT, AUX = 1, 2, 3, 4, 5, 6


def b2(data, key=b""):
    return hashlib.blake2b(data, digest_size=32, key=key).digest()

def b64(data):
    return base64.b64encode(data).decode()

def zstd(data, dictionary=None):
    return zstandard.ZstdCompressor(level=1, dict_data=dictionary).compress(data)

def seal(key, nonce, aad, data):
    return na.crypto_aead_xchacha20poly1305_ietf_encrypt(data, aad, nonce, key)

def sign(seed, prefix, data):
    public, secret = na.crypto_sign_seed_keypair(seed)
    return data + na.crypto_sign(prefix + data, secret)[:64]


class Key:
    def __init__(self, role, node=None):
        self.role, self.node = role, node
        self.box_secret, self.seed = os.urandom(32), os.urandom(32)
        self.box = na.crypto_scalarmult_base(self.box_secret)
        self.sign = na.crypto_sign_seed_keypair(self.seed)[0]
        self.id = b2(self.box + self.sign)[:8]

    def entry(self, sealed, **more):
        e = {"id": self.id.hex(), "role": self.role, "name": self.role, "box": self.box.hex(),
             "sign": self.sign.hex(), "status": "active", "created": "2026-01-01T00:00:00Z",
             "sealed": na.crypto_box_seal(sealed, self.box).hex()}
        return {**e, **({"node": self.node} if self.node else {}), **more}


class Writer:
    """A vault with one node, one restore key, and packs and snapshots as the test wants them."""

    def __init__(self, root):
        self.root, self.id = root, os.urandom(16)
        self.restore, self.node = Key("restore"), Key("node", NODE)
        self.id_key, self.meta_key = os.urandom(32), os.urandom(32)
        self.chunk_key = b2(b"imvault chunk v1", self.id_key)
        self.page_key = b2(b"imvault page v1", self.id_key)
        self.packs, self.prev, self.seq, self.rings = [], None, 0, []
        self.put("vault.json", json.dumps({
            "format": "imvault", "version": 1, "id": self.id.hex(),
            "created": "2026-01-01T00:00:00Z", "authority": self.restore.sign.hex()}).encode())
        self.keyring()
        with open(root + ".key", "w") as f:
            json.dump({"imvault": "key", "version": 1, "vault": self.id.hex(), "role": "restore",
                       "id": self.restore.id.hex(), "name": "x",
                       "authority": self.restore.sign.hex(),
                       "secret": (self.restore.box_secret + self.restore.seed).hex()}, f)

    def put(self, name, data):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)

    def keyring(self, signer=None, node_more=None):
        g = len(self.rings) + 1
        sealed = self.id_key + struct.pack("<I", g) + b"".join(
            struct.pack("<I", i + 1) + self.meta_key for i in range(g))
        ring = {"vault": self.id.hex(), "generation": g, "created": "2026-01-01T00:00:00Z",
                "keys": [self.restore.entry(sealed), self.node.entry(sealed, **(node_more or {}))]}
        if self.rings:
            ring["prev"] = self.rings[-1]
        text, signer = json.dumps(ring).encode(), signer or self.restore
        data = b"IMVKEYS1" + struct.pack("<I", len(text)) + text + signer.id
        data = sign(signer.seed, b"imvault keyring v1\0", data)
        self.rings.append(b2(data).hex())
        self.put(f"keys/{g:08d}", data)

    def pack(self, entries, dictionary=None, commitment=None):
        """entries: (type, codec, data). Returns their refs."""
        key, uid, refs, slot = os.urandom(32), os.urandom(16), [], 0
        at, body, listing = 56 + 88, b"", b""
        if dictionary:
            entries = [(DICT, 1, dictionary)] + entries
        trained = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        for kind, codec, data in entries:
            packed = data if codec == 0 else zstd(data, trained if codec == 2 else None)
            aad = b"IMVE" + struct.pack("<BII", kind, slot, len(data)) + self.id + uid
            box = seal(key, struct.pack("<Q16x", slot), aad, bytes([codec]) + packed)
            refs.append(struct.pack("<5I", len(self.packs), at, len(box), slot, len(data)))
            listing += struct.pack("<BB4I", kind, 0, at, len(box), slot, len(data))
            body, at, slot = body + box, at + len(box), slot + 1
        sizes = struct.unpack("<8xI4xI", refs[0]) if dictionary else (0, 0)
        head = b"IMVPACK1" + struct.pack("<HHI", 1, 1, 1) + self.id + uid + struct.pack("<II", *sizes)
        head += self.restore.id + na.crypto_box_seal(key, self.restore.box)
        nonce = os.urandom(24)
        trailer = nonce + seal(b2(b"imvault trailer v1", self.meta_key), nonce,
                               b"IMVT" + self.id + uid, zstd(listing))
        data = head + body + trailer + b"IMVPEND1" + struct.pack(
            "<III8x", at, len(trailer), len(entries))
        data = data[:-32] + data[-32:]
        name = b2(data).hex()
        self.put(f"packs/{name[:2]}/{name}", data)
        commitment = commitment or b2(b"imvault pack v1" + self.id + uid, key)
        self.packs.append(struct.pack("<II", len(self.packs), len(data)) + b2(data) + commitment)
        return refs[1:] if dictionary else refs

    def snapshot(self, stores, signer=None, **meta_more):
        self.seq += 1
        key, signer = os.urandom(32), signer or self.node
        meta = {"kind": "snapshot", "node": NODE, "seq": self.seq, "epoch": "0" * 16,
                "time": "2026-01-01T00:00:00.000Z", "packs": b64(b"".join(self.packs)),
                "stores": [{"name": s["name"], "type": s["type"], "path": s["path"],
                            "status": "ok", "bytes": 1} for s in stores], **meta_more}
        if self.prev:
            meta["prev"] = self.prev
        meta = zstd(json.dumps(meta).encode())
        private = zstd(json.dumps({"config": "[node]\n", "stores": stores}).encode())
        head = b"IMVREC1\n" + struct.pack("<HBxI", 1, 1, len(self.rings)) + signer.id + self.id
        head += struct.pack("<IIH6x", len(meta) + 16, len(private) + 16, 1)
        head += self.restore.id + na.crypto_box_seal(key, self.restore.box)
        n1, n2 = os.urandom(24), os.urandom(24)
        data = head + n1 + seal(b2(b"imvault record meta v1", self.meta_key), n1, head, meta)
        data += n2 + seal(key, n2, head, private)
        data = sign(signer.seed, b"imvault record v1\0", data)
        self.prev = b2(data).hex()
        name = f"snapshots/{NODE}/{self.seq:08d}-{self.prev[:16]}"
        self.put(name, data)
        return name

    def files(self, members, path="/srv/tree", tweak_id=None):
        """members: (TarInfo, content or None). Content goes into one chunk per file."""
        contents = [c for _, c in members if c]
        refs = self.pack([(FILE_CHUNK, 1, c) for c in contents] or [(FILE_CHUNK, 0, b"x")])
        table = b"".join(r + (tweak_id or b2(c, self.chunk_key)) for r, c in zip(refs, contents))
        out, row = io.BytesIO(), 0
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8",
                          errors="surrogateescape") as tar:
            for m, c in members:
                body = b""
                if m.isreg():
                    body = struct.pack("<QI", len(c), 1 if c else 0)
                    if c:
                        body += struct.pack("<QIII", 0, row, 0, len(c))
                        row += 1
                m.size = len(body)
                tar.addfile(m, io.BytesIO(body))
        segment = struct.pack("<I", len(contents)) + table + out.getvalue()
        ref, = self.pack([(SEGMENT, 1, segment)])
        return {"name": "tree", "type": "files", "path": path, "segments": b64(ref),
                "files": len(contents), "dirs": 0, "others": 0, "bytes": 0}

    def sqlite(self, data, page, runs=None, dictionary=None, path="/srv/db.sqlite", **more):
        """Extents of up to 16 pages; runs: (first, count, skip, extent) or None for all in order."""
        pages, step = len(data) // page, 16
        extents = [data[i:i + step * page] for i in range(0, len(data), step * page)]
        refs = self.pack([(EXTENT, 2 if dictionary else i % 2, e) for i, e in enumerate(extents)]
                         or [(EXTENT, 0, b"x")], dictionary)
        runs = runs or [(i * step, min(step, pages - i * step), 0, i) for i in range(len(extents))]
        leaves = []
        for base in range(0, pages, 4096):
            rows = b"".join(struct.pack("<IHH20s4x", f - base, n, skip, refs[e])
                            for f, n, skip, e in runs if base <= f < base + 4096)
            leaves += self.pack([(LEAF, 1, rows)])
        total = 0
        for i in range(pages):
            total ^= int.from_bytes(poly1305(self.page_key, data[i * page:(i + 1) * page]
                                             + struct.pack("<Q8x", i)), "big")
        return {"name": "db", "type": "sqlite", "path": path, "page_size": page, "pages": pages,
                "leaf_pages": 4096, "leaves": b64(b"".join(leaves)),
                "checksum": total.to_bytes(16, "big").hex(), "file_bytes": len(data),
                "mode": 0o640, "uid": os.getuid(), "gid": os.getgid(), "user": "", "group": "",
                "mtime_ns": 1700000000123456789, **more}


def poly1305(key, data):
    r = int.from_bytes(key[:16], "little") & 0x0ffffffc0ffffffc0ffffffc0fffffff
    a = 0
    for i in range(0, len(data), 16):
        a = (a + int.from_bytes(data[i:i + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return ((a + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def member(name, kind=tarfile.REGTYPE, link="", mode=0o644, **pax):
    m = tarfile.TarInfo(name)
    m.type, m.linkname, m.mode, m.uid, m.gid = kind, link, mode, os.getuid(), os.getgid()
    m.pax_headers = {"mtime": "1700000000.123456789", **pax}
    return m


class Case:
    """One vault in a scratch folder, with a canary beside the target that nothing may touch."""

    def __init__(self, name):
        self.name, self.scratch = name, tempfile.mkdtemp(prefix="imvault-rescue-")
        self.vault = Writer(os.path.join(self.scratch, "vault"))
        self.target = os.path.join(self.scratch, "target")
        self.outside = os.path.join(self.scratch, "outside")
        os.mkdir(self.outside)
        with open(os.path.join(self.outside, "canary"), "w") as f:
            f.write("alive")

    def restore(self, expect, *more, command="restore"):
        target = ["--to", self.target] if command == "restore" else []
        run = subprocess.run([RESCUE, "--vault", self.vault.root, "--key", self.vault.root + ".key",
                              command, *target, *more], capture_output=True, text=True)
        assert run.returncode == expect, f"{self.name}: exit {run.returncode}\n{run.stdout}{run.stderr}"
        assert "Traceback" not in run.stderr, run.stderr
        assert os.listdir(self.outside) == ["canary"], f"{self.name}: it escaped"
        with open(os.path.join(self.outside, "canary")) as f:
            assert f.read() == "alive", f"{self.name}: it escaped"
        return run

    def path(self, name):
        return os.path.join(self.target, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        shutil.rmtree(self.scratch, ignore_errors=True)
        if error[0] is None:
            print("ok  ", self.name)


def make_database(page, rows=3000):
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(os.path.join(folder, "db"))
        db.execute(f"PRAGMA page_size = {page}")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        db.executemany("INSERT INTO t (text) VALUES (?)",
                       ((f"message {i} 消息 {i * 7919 % 10007}",) for i in range(rows)))
        db.commit()
        db.close()
        with open(os.path.join(folder, "db"), "rb") as f:
            return f.read()


def sound():
    with Case("a sound vault comes back byte for byte") as c:
        v, data = c.vault, make_database(4096)
        tree = [(member(".", tarfile.DIRTYPE, mode=0o750), None),
                (member("file", mode=0o600), b"content"), (member("empty"), b""),
                (member("sub", tarfile.DIRTYPE, mode=0o500), None),
                (member("sub/名字 \udcff", mode=0o755), b"odd name" * 1000),
                (member("hard", tarfile.LNKTYPE, "file"), None),
                (member("soft", tarfile.SYMTYPE, "../nowhere"), None),
                (member("pipe", tarfile.FIFOTYPE), None)]
        dictionary = bytes(os.urandom(200)) * 50
        v.snapshot([v.sqlite(data, 4096), v.files(tree)])
        v.snapshot([v.sqlite(data[:4096 * 20], 4096, dictionary=dictionary,
                             journal=b64(v.pack([(AUX, 1, b"hot")])[0]), journal_bytes=3)])
        c.restore(0, "--snapshot", "1")
        assert c.read("srv/db.sqlite") == data
        s = os.stat(c.path("srv/db.sqlite"))
        assert (stat.S_IMODE(s.st_mode), s.st_mtime_ns) == (0o640, 1700000000123456789)
        assert c.read("srv/tree/file") == b"content" and c.read("srv/tree/empty") == b""
        assert c.read("srv/tree/sub/名字 \udcff") == b"odd name" * 1000
        assert os.stat(c.path("srv/tree/hard")).st_nlink == 2
        assert os.readlink(c.path("srv/tree/soft")) == "../nowhere"
        assert stat.S_ISFIFO(os.stat(c.path("srv/tree/pipe")).st_mode)
        for name, mode in (("", 0o750), ("/sub", 0o500), ("/file", 0o600), ("/sub/名字 \udcff", 0o755)):
            s = os.stat(c.path("srv/tree" + name))
            assert (stat.S_IMODE(s.st_mode), s.st_mtime_ns) == (mode, 1700000000123456789), name
        os.chmod(c.path("srv/tree/sub"), 0o700)
        c.restore(2)                               # the target is no longer empty
        shutil.rmtree(c.target)
        c.restore(0)
        assert c.read("srv/db.sqlite") == data[:4096 * 20]
        assert c.read("srv/db.sqlite-journal") == b"hot"
        assert "00000002-" in c.restore(0, command="list").stdout

def hostile_paths():
    out = "../../../outside/x"
    for title, members in (
            ("a path with ..", [(member(out), b"x")]),
            ("an absolute path with ..", [(member("/../../outside/x"), b"x")]),
            ("a hard link out", [(member("x", tarfile.LNKTYPE, "../../../outside/canary"), None)])):
        with Case(title) as c:
            c.vault.snapshot([c.vault.files(members)])
            c.restore(6)
    with Case("a store path with ..") as c:
        c.vault.snapshot([c.vault.files([(member("x"), b"x")], path="/../outside")])
        c.restore(6)
    with Case("a symlink, then a file through it") as c:
        c.vault.snapshot([c.vault.files([
            (member("a", tarfile.SYMTYPE, os.path.join(c.outside)), None), (member("a/x"), b"x"),
            (member("canary", tarfile.SYMTYPE, c.outside + "/canary"), None),
            (member("canary"), b"dead")])])
        c.restore(6)
    with Case("a symlink of one store under another store") as c:
        a = c.vault.files([(member("s", tarfile.SYMTYPE, c.outside), None)], path="/srv")
        b = c.vault.sqlite(make_database(4096, 10), 4096, path="/srv/s/canary")
        c.vault.snapshot([a, b])
        c.restore(6)

def damage():
    def one_store(c, **more):
        return c.vault.sqlite(make_database(1024), 1024, **more)
    def flip(path, at):
        with open(path, "r+b") as f:
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 1]))
    for title, at in (("pack entry", 56 + 88 + 40), ("pack key", 56 + 20)):
        with Case(f"a flipped bit in a {title}") as c:
            c.vault.snapshot([one_store(c)])
            name = c.vault.packs[0][8:40].hex()
            flip(os.path.join(c.vault.root, "packs", name[:2], name), at)
            c.restore(6)
            assert not os.path.exists(c.path("srv/db.sqlite"))
    with Case("a missing pack costs only its store") as c:
        good = c.vault.files([(member("file"), b"content")])
        first = len(c.vault.packs)
        c.vault.snapshot([one_store(c), good])
        name = c.vault.packs[first][8:40].hex()
        os.unlink(os.path.join(c.vault.root, "packs", name[:2], name))
        c.restore(6)
        assert c.read("srv/tree/file") == b"content"
        assert not os.path.exists(c.path("srv/db.sqlite"))
    with Case("a pack another key's holder could have written") as c:
        c.vault.pack([(FILE_CHUNK, 0, b"x")])
        store = one_store(c)
        c.vault.packs[1] = c.vault.packs[1][:40] + bytes(32)
        c.vault.snapshot([store])
        c.restore(6)
    with Case("a flipped bit in a snapshot") as c:
        flip(os.path.join(c.vault.root, c.vault.snapshot([one_store(c)])), 300)
        c.restore(6)
        c.restore(6, command="list")
    with Case("a chunk that is not the one named") as c:
        c.vault.snapshot([c.vault.files([(member("file"), b"content")], tweak_id=bytes(32))])
        c.restore(6)
    with Case("a map with a gap, a wrong sum, a short extent") as c:
        data = make_database(1024)[:32 * 1024]
        for store in (c.vault.sqlite(data, 1024, runs=[(0, 16, 0, 0), (17, 15, 0, 1)]),
                      c.vault.sqlite(data, 1024, checksum="00" * 16),
                      c.vault.sqlite(data, 1024, runs=[(0, 16, 0, 0), (16, 16, 1, 1)]),
                      c.vault.sqlite(data, 1024, leaves="")):
            c.vault.snapshot([store])
            c.restore(6)
            shutil.rmtree(c.target)

def keys():
    store = lambda c: [c.vault.files([(member("file"), b"content")])]
    with Case("a snapshot signed by a foreign key") as c:
        c.vault.snapshot(store(c), signer=Key("node", NODE))
        c.restore(6)
    with Case("a revoked node key: trusted up to its last snapshot") as c:
        c.vault.snapshot(store(c))
        c.vault.keyring(node_more={"status": "revoked", "last": {NODE: 1}})
        c.vault.snapshot(store(c))
        c.restore(6)
        c.restore(0, "--snapshot", "1")
    with Case("another node's key") as c:
        c.vault.keyring(node_more={"node": "im-02"})
        c.vault.snapshot(store(c))
        c.restore(6)
    with Case("a keyring signed by a node key") as c:
        c.vault.keyring(signer=c.vault.node)
        c.vault.snapshot(store(c))
        c.restore(6)
    with Case("a keyring with a generation missing") as c:
        c.vault.keyring()
        c.vault.keyring()
        c.vault.snapshot(store(c))
        os.unlink(os.path.join(c.vault.root, "keys/00000002"))
        c.restore(6)
    with Case("another vault's key") as c:
        c.vault.snapshot(store(c))
        with Case("(its own vault)") as other:
            shutil.copy(other.vault.root + ".key", c.vault.root + ".key")
        c.restore(5)
    with Case("no such snapshot, no such store") as c:
        c.vault.snapshot(store(c))
        c.restore(7, "--snapshot", "9")
        c.restore(7, "--store", "nothing")


sound()
hostile_paths()
damage()
keys()
print("rescue.py: all as promised")
