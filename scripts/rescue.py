#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Restores an imvault vault without imvault.

Written from docs/FORMAT.md alone, sharing no code with the program: a second way out, and a check
that the format page says everything. Needs Debian's python3-nacl and either python3-zstandard or,
slower, the zstd tool. What always holds: the vault is only read; nothing is written outside --to,
which must be new or empty and gets its links last, so that none can lead out; what no signature,
key or hash vouches for is not restored; a file has its final name only when it is whole. Exit:
0 done, 1 failed, 2 usage, 3 a store is not in the snapshot, 5 key refused, 6 damage, 7 not found.
"""
import argparse, base64, collections, contextlib, ctypes, functools, getpass, grp, hashlib, io, json
import os, pwd, re, stat, struct, subprocess, sys, tarfile, tempfile, urllib.parse

from nacl import bindings as na
from nacl.exceptions import CryptoError
try:
    import zstandard
    ZstdError = zstandard.ZstdError
except ImportError:
    zstandard, ZstdError = None, subprocess.CalledProcessError
try:
    onetimeauth = ctypes.CDLL("libsodium.so.23").crypto_onetimeauth
except OSError:
    onetimeauth = None                             # page hashes then go unchecked, pages do not

MIB = 1 << 20
FILE_CHUNK, EXTENT, LEAF, SEGMENT, DICT, AUX = 1, 2, 3, 4, 5, 6
MALFORMED = (FileNotFoundError, LookupError, TypeError, ValueError, CryptoError, ZstdError,
             struct.error, tarfile.TarError)

class Fault(Exception):                            # what cannot be trusted or done
    def __init__(self, text, code=6):
        super().__init__(text)
        self.code = code

def need(ok, text, code=6):
    if not ok:
        raise Fault(text, code)

def warn(text):
    print(f"rescue: {text}", file=sys.stderr)

@contextlib.contextmanager
def about(what, code=6):
    """Whatever is wrong inside becomes a Fault that says what it is about."""
    try:
        yield
    except Fault as e:
        raise Fault(f"{what}: {e}", e.code) from None
    except MALFORMED as e:
        raise Fault(f"{what}: missing, altered or not as the format says ({e!r})", code) from e

def b2(data, key=b""):
    return hashlib.blake2b(data, digest_size=32, key=key).digest()
def aead_open(key, nonce, aad, box):
    return na.crypto_aead_xchacha20poly1305_ietf_decrypt(box, aad, nonce, key)
def unseal(secret, box):
    return na.crypto_box_seal_open(box, na.crypto_scalarmult_base(secret), secret)
def check_signature(public, prefix, data):         # data ends with the signature
    na.crypto_sign_open(data[-64:] + prefix + data[:-64], public)
def poly1305(key, data, tag=ctypes.create_string_buffer(16)):
    onetimeauth(tag, data, ctypes.c_ulonglong(len(data)), key)
    return int.from_bytes(tag.raw, "big")

@functools.lru_cache(maxsize=32)
def decompressor(dictionary):
    made = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=made)

def unzstd(frame, limit, dictionary=b""):
    """One zstd frame of at most limit bytes."""
    if zstandard:
        need(zstandard.frame_content_size(frame) <= limit, "would decompress to too much")
        return decompressor(dictionary).decompress(frame, max_output_size=limit)
    with tempfile.NamedTemporaryFile() as d:
        d.write(dictionary)
        d.flush()
        command = ["zstd", "-dcq"] + (["-D", d.name] if dictionary else [])
        return subprocess.run(command, input=frame, stdout=subprocess.PIPE, check=True).stdout

# --- keys: FORMAT.md 3 ------------------------------------------------------------------------
def load_key(path, passphrase_file):
    """The key file, its id and its X25519 secret."""
    with open(path) as f, about(path, code=5):
        key = json.load(f)
        need(key["imvault"] == "key" and key["version"] == 1, "not a key file", 5)
        need(key["role"] == "restore", f"a {key['role']} key cannot read; a restore key can", 5)
        secret = (ask_secret(key["protected"], passphrase_file) if "protected" in key
                  else bytes.fromhex(key["secret"]))
        box, (sign, _) = secret[:32], na.crypto_sign_seed_keypair(secret[32:])
        kid = b2(na.crypto_scalarmult_base(box) + sign)[:8].hex()
        need(kid == key["id"], "id and secret do not belong together", 5)
        return key, kid, box

def ask_secret(p, passphrase_file):
    need(p["kdf"] == "argon2id" and p["memlimit_bytes"] <= 4 << 30, "unknown kdf", 5)
    if passphrase_file:
        with open(passphrase_file, "rb") as f:
            phrase = f.readline().rstrip(b"\r\n")
    else:
        phrase = getpass.getpass("Passphrase: ").encode()
    salt, nonce, box = (bytes.fromhex(p[name]) for name in ("salt", "nonce", "box"))
    k = na.crypto_pwhash_alg(32, phrase, salt, p["opslimit"], p["memlimit_bytes"],
                             na.crypto_pwhash_ALG_ARGON2ID13)
    with about("wrong passphrase", code=5):
        return aead_open(k, nonce, b"imvault key v1", box)

class Vault:
    """vault.json, the keyring chain and the secrets our key opens. Key ids are hex."""
    def __init__(self, root, key_path, passphrase_file):
        self.root = root
        key, kid, box = load_key(key_path, passphrase_file)
        head = json.loads(self.read("vault.json"))
        need((head["format"], head["version"]) == ("imvault", 1), "not a version 1 vault", 2)
        need(head["id"] == key["vault"] and head["authority"] == key["authority"],
             f"{key_path}: belongs to another vault ({key['vault']})", 5)
        self.id = bytes.fromhex(head["id"])
        rings = list(self.keyrings(head["authority"]))
        mine = [k for r in rings for k in r["keys"] if k["id"] == kid and "sealed" in k]
        need(mine, f"{key_path}: no keyring of this vault knows this key", 5)
        self.keys = {k["id"]: k for k in rings[-1]["keys"]}
        with about("the keys sealed to us"):
            plain = unseal(box, bytes.fromhex(mine[-1]["sealed"]))  # also of a revoked key
            need(len(plain) == 36 + 36 * struct.unpack_from("<I", plain, 32)[0], "wrong length")
            self.meta_keys = dict(struct.iter_unpack("<I32s", plain[36:]))
            self.chunk_key = b2(b"imvault chunk v1", plain[:32])
            self.page_key = b2(b"imvault page v1", plain[:32])
            self.secrets = {other["id"]: unseal(box, bytes.fromhex(other["sealed"]))
                            for other in mine[-1].get("inherits", [])}
            self.secrets[kid] = box

    def read(self, name):
        with open(os.path.join(self.root, name), "rb") as f:
            return f.read()

    def names(self, folder, pattern):
        return sorted(filter(re.compile(pattern).fullmatch, os.listdir(f"{self.root}/{folder}")))

    def keyrings(self, authority):
        """Every generation, each checked to be signed by a restore key of the one before."""
        signers, prev = {}, None
        for g, name in enumerate(self.names("keys", r"[0-9]{8}"), 1):
            with about("keys/" + name):
                need(int(name) == g, "a generation before it is missing")
                data = self.read("keys/" + name)
                magic, size = struct.unpack_from("<8sI", data)
                need(magic == b"IMVKEYS1" and len(data) == 84 + size, "not a keyring")
                public = authority if g == 1 else signers.get(data[12 + size:20 + size].hex())
                need(public, "not signed by a restore key of the generation before")
                check_signature(bytes.fromhex(public), b"imvault keyring v1\0", data)
                ring = json.loads(data[12:12 + size])
                need((ring["generation"], ring["vault"]) == (g, self.id.hex()), "is another one")
                need(ring.get("prev") == prev, "does not follow the one before")
                signers = {k["id"]: k["sign"] for k in ring["keys"]
                           if k["role"] == "restore" and k["status"] == "active"}
                prev = b2(data).hex()
            yield ring

    def secret_for(self, table):
        """Opens the key sealed to us in a recipients' table of key id[8], seal[80]."""
        for kid, box in struct.iter_unpack("8s80s", table):
            if kid.hex() in self.secrets:
                return unseal(self.secrets[kid.hex()], box)
        raise Fault("not sealed to this key", 5)

    def signer(self, kid, node, seq):
        """The public key of a node key that may have signed snapshot seq of node."""
        key = self.keys.get(kid)
        need(key and key["role"] == "node", f"signed by {kid}, which is no node key")
        def line(k):                               # k and the keys it succeeded
            return {k["id"]} | (line(self.keys[k["replaces"]]) if "replaces" in k else set())
        owned = {k.get("node") for k in self.keys.values() if not line(k) & line(key)}
        need(key["node"] == node if key.get("node") else node not in owned,
             "signed by the key of another node")
        last = seq if key["status"] == "active" else key.get("last", {}).get(node, 0)
        need(seq <= last, "signed by a key that was revoked")
        return bytes.fromhex(key["sign"])

    def snapshots(self, node):
        return self.names("snapshots/" + node, r"[0-9]{8}-[0-9a-f]{16}")

class Snapshot:
    """A record of FORMAT.md 5: signature and meta at once, private when asked for."""
    def __init__(self, vault, node, name):
        self.vault, self.what, seq = vault, f"snapshots/{node}/{name}", int(name[:8])
        with about(self.what):
            self.data = data = vault.read(self.what)
            magic, version, kind, generation = struct.unpack_from("<8sHBxI", data)
            need((magic, version, kind) == (b"IMVREC1\n", 1, 1), "not a snapshot")
            meta_len, self.private_len, recipients = struct.unpack_from("<IIH", data, 40)
            self.head = 56 + 88 * recipients
            self.private_at = self.head + 24 + meta_len
            need(data[24:40] == vault.id, "belongs to another vault")
            need(b2(data).hex()[:16] == name[9:], "content and name differ")
            public = vault.signer(data[16:24].hex(), node, seq)
            check_signature(public, b"imvault record v1\0", data)
            key = b2(b"imvault record meta v1", vault.meta_keys[generation])
            self.meta = m = self.part(key, self.head, meta_len)
            need((m["kind"], m["node"], m["seq"]) == ("snapshot", node, seq), "is another one")

    def part(self, key, at, size):
        nonce, box = self.data[at:at + 24], self.data[at + 24:at + 24 + size]
        return json.loads(unzstd(aead_open(key, nonce, self.data[:self.head], box), 1 << 30))

    def private(self):
        with about(self.what):
            key = self.vault.secret_for(self.data[56:self.head])
            return self.part(key, self.private_at, self.private_len)

# --- packs: FORMAT.md 4 -----------------------------------------------------------------------
Pack = collections.namedtuple("Pack", "file what key context dictionary")

class Packs:
    """Reads entries through the pack table of one snapshot; remembers the last few."""
    def __init__(self, vault, snapshot):
        table = struct.iter_unpack("<II32s32s", base64.b64decode(snapshot.meta["packs"]))
        self.vault, self.table = vault, {number: rest for number, *rest in table}
        self.pack = functools.lru_cache(maxsize=64)(self.open_pack)
        self.get = functools.lru_cache(maxsize=64)(self.read)

    def open_pack(self, number):
        need(number in self.table, f"pack {number} is not in the pack table")
        _, name, commitment = self.table[number]
        what = f"packs/{name.hex()[:2]}/{name.hex()}"
        with about(what):
            f = open(os.path.join(self.vault.root, what), "rb", buffering=0)
            magic, version, recipients, context, stored, plain_len = struct.unpack(
                "<8sHH4x32sII", f.read(56))        # context: vault id, uid
            need((magic, version) == (b"IMVPACK1", 1), "not a pack")
            need(context[:16] == self.vault.id, "belongs to another vault")
            key = self.vault.secret_for(f.read(88 * recipients))
            need(b2(b"imvault pack v1" + context, key) == commitment,
                 "not written by the node that signed the snapshot")
        pack = Pack(f, what, key, context, b"")
        if stored:
            dictionary = self.entry(pack, DICT, 56 + 88 * recipients, stored, 0, plain_len)
            pack = pack._replace(dictionary=dictionary)
        return pack

    @staticmethod
    def entry(pack, kind, offset, stored, slot, plain_len):
        with about(f"{pack.what} at {offset}"):
            limit = (64 if kind in (LEAF, SEGMENT) else 16) * MIB
            need(plain_len <= limit and stored <= limit + MIB, "sizes beyond limits")
            box = os.pread(pack.file.fileno(), stored, offset)
            aad = b"IMVE" + struct.pack("<BII", kind, slot, plain_len) + pack.context
            data = aead_open(pack.key, struct.pack("<Q16x", slot), aad, box)
            codec, data = data[0], data[1:]
            need(codec <= 2, f"unknown codec {codec}")
            if codec:
                data = unzstd(data, plain_len, pack.dictionary if codec == 2 else b"")
            need(len(data) == plain_len, f"{len(data)} bytes instead of {plain_len}")
            return data

    def read(self, kind, ref):
        """The plain content a 20-byte ref points to; call it as get(), which remembers."""
        number, offset, stored, slot, plain_len = struct.unpack("<5I", ref)
        return self.entry(self.pack(number), kind, offset, stored, slot, plain_len)

def refs(text):
    return [r for r, in struct.iter_unpack("20s", base64.b64decode(text or ""))]

# --- writing beneath --to ---------------------------------------------------------------------
def lookup(find, name, number):
    """Owners by name where this machine knows the name, else by number."""
    with contextlib.suppress(KeyError, UnicodeEncodeError):
        return find(name)[2]
    return number

class Target:
    """The folder restored into. Links come last, so that no path leads through one."""
    def __init__(self, path):
        os.makedirs(path, mode=0o700, exist_ok=True)
        need(not os.listdir(path), f"{path}: is not empty", 2)
        self.root, self.skipped = os.fsencode(os.path.realpath(path)), collections.Counter()
        self.links, self.folders, self.temp = [], [], os.path.join(self.root, b".imvault-rescue")

    def place(self, path):
        """Where an original absolute path goes; the folders on the way are made."""
        parts = [p for p in path.split(b"/") if p not in (b"", b".")]
        need(parts and b".." not in parts, f"refused path {path!r}")
        place = os.path.join(self.root, *parts)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return place

    def create(self, place, fill, meta):
        """A temporary file, written by fill(file) and given its metadata, then its name."""
        need(not os.path.lexists(place), f"{place!r} comes twice")
        with open(self.temp, "wb") as f:
            fill(f)
            f.flush()
            self.describe(self.temp, meta)
            os.fsync(f.fileno())
        os.rename(self.temp, place)

    def describe(self, place, meta):
        """Owner, mode, ACLs, xattrs, times; what this user may not set is counted, not fatal."""
        uid = lookup(pwd.getpwnam, meta["user"], meta["uid"])
        gid = lookup(grp.getgrnam, meta["group"], meta["gid"])
        owned = self.attempt("owner", os.lchown, place, uid, gid)
        if not os.path.islink(place):
            self.attempt("mode", os.chmod, place, meta["mode"] & (0o7777 if owned else 0o777))
        for key, value in meta.get("xattrs", {}).items():
            self.attempt("xattr", os.setxattr, place, key, value, follow_symlinks=False)
        self.attempt("time", os.utime, place, ns=(meta["mtime_ns"],) * 2, follow_symlinks=False)

    def attempt(self, what, call, *args, **options):
        try:
            call(*args, **options)
            return True
        except OSError as e:
            self.skipped[f"{what} ({e.strerror})"] += 1

    def finish(self):
        for symbolic, old, place, meta in self.links:
            if symbolic:
                self.attempt(f"LINK {place!r}", os.symlink, old, place)
                self.describe(place, meta)
            else:
                self.attempt(f"LINK {place!r}", os.link, old, place, follow_symlinks=False)
        for place, meta in reversed(self.folders):   # a mode may forbid, a write moves the mtime
            self.describe(place, meta)
        if os.path.exists(self.temp):              # of a file that could not be finished
            os.unlink(self.temp)

# --- stores -----------------------------------------------------------------------------------
def restore_sqlite(vault, packs, store, target):
    page, per_leaf, pages = store["page_size"], store["leaf_pages"], store["pages"]
    place, leaves = target.place(os.fsencode(store["path"])), refs(store["leaves"])
    need(len(leaves) == -(-pages // per_leaf), "leaves are missing")

    def fill(f):
        checksum = 0
        for leaf, base in zip(leaves, range(0, pages, per_leaf)):
            at = base
            for first, count, skip, ref in struct.iter_unpack("<IHH20s4x", packs.get(LEAF, leaf)):
                data = packs.get(EXTENT, ref)[skip * page:(skip + count) * page]
                need(base + first == at, f"page {at} is in no extent")
                need(0 < len(data) == count * page, f"page {at}: its extent is too short")
                for i in range(count if onetimeauth else 0):
                    content = data[i * page:(i + 1) * page]
                    checksum ^= poly1305(vault.page_key, content + struct.pack("<Q8x", at + i))
                f.write(data)
                at += count
            need(at == min(base + per_leaf, pages), f"page {at} is in no extent")
        need(not onetimeauth or checksum == int(store["checksum"], 16), "page checksum differs")
        need(f.tell() == store["file_bytes"], "the size differs")

    def fill_journal(f):
        f.writelines(packs.get(AUX, ref) for ref in refs(store["journal"]))
        need(f.tell() == store["journal_bytes"], "the journal is incomplete")
    if store.get("journal"):                       # first: the database is unsafe without it
        target.create(place + b"-journal", fill_journal, store)
    target.create(place, fill, store)

def raw_name(name):
    return name.encode("utf-8", "surrogateescape")

def acl_bytes(text):
    """ACL text (user:NAME:rwx[:ID], …) in the form the kernel takes as an xattr."""
    entries = []
    for kind, who, perms, *number in (e.split(":") for e in re.split(r"[,\n]", text) if e):
        bits = sum(bit for letter, bit in zip("rwx", (4, 2, 1)) if letter in perms)
        tag = {"user": 1, "group": 4, "mask": 16, "other": 32}[kind]
        find = pwd.getpwnam if kind == "user" else grp.getgrnam
        entries.append((tag * 2, lookup(find, who, int((number or [who])[0])), bits) if who
                       else (tag, 0xffffffff, bits))
    rows = (struct.pack("<HHI", tag, bits, number) for tag, number, bits in sorted(entries))
    return struct.pack("<I", 2) + b"".join(rows)

def tar_meta(m):
    """What describe() needs of a pax entry. A float would lose ns; "-2.25" is 0.25 after -2."""
    seconds, _, fraction = m.pax_headers.get("mtime", str(int(m.mtime))).partition(".")
    mtime_ns = int(seconds) * 10**9 + int((fraction + "000000000")[:9])
    xattrs = {}
    for key, raw in ((k, raw_name(v)) for k, v in m.pax_headers.items()):
        if key.startswith("SCHILY.xattr."):
            xattrs[urllib.parse.unquote_to_bytes(key[13:])] = raw
        elif key in ("SCHILY.acl.access", "SCHILY.acl.default"):
            xattrs["system.posix_acl_" + key[11:]] = acl_bytes(raw.decode())
    return {"user": m.uname, "group": m.gname, "uid": m.uid, "gid": m.gid, "mode": m.mode,
            "mtime_ns": mtime_ns, "xattrs": xattrs}

def restore_files(vault, packs, store, target):
    base, faults = os.fsencode(store["path"]) + b"/", 0
    for ref in refs(store["segments"]):
        segment = packs.read(SEGMENT, ref)
        start = 4 + 52 * struct.unpack_from("<I", segment)[0]
        chunks, archive = list(struct.iter_unpack("20s32s", segment[4:start])), segment[start:]
        for m in tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8",
                              errors="surrogateescape"):
            body = archive[m.offset_data:m.offset_data + m.size] if m.isreg() else b""
            fill = functools.partial(fill_pieces, vault, packs, chunks, body)
            try:
                restore_entry(m, base, target, fill)
            except (Fault, *MALFORMED, OSError) as e:
                faults += 1                        # one bad file does not cost the others
                warn(f"store {store['name']}: {m.name!r}: {e}")
    need(not faults, f"{faults} entries could not be restored")

def restore_entry(m, base, target, fill):
    place, meta = target.place(base + raw_name(m.name)), tar_meta(m)
    if m.isreg():
        target.create(place, fill, meta)
    elif m.isdir():
        os.makedirs(place, exist_ok=True)
        target.folders.append((place, meta))
    elif m.issym():
        target.links.append((True, raw_name(m.linkname), place, meta))
    elif m.islnk():
        target.links.append((False, target.place(base + raw_name(m.linkname)), place, meta))
    else:
        kind = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}[m.type]
        os.mknod(place, 0o600 | kind, os.makedev(m.devmajor, m.devminor))
        target.describe(place, meta)

def fill_pieces(vault, packs, chunks, body, f):
    size, count = struct.unpack_from("<QI", body)
    need(len(body) == 12 + 20 * count, "the piece list has the wrong length")
    f.truncate(size)
    for at, row, skip, length in struct.iter_unpack("<QIII", body[12:]):
        data = packs.get(FILE_CHUNK, chunks[row][0])
        need(b2(data, vault.chunk_key) == chunks[row][1], "a chunk is not the one named")
        need(skip + length <= len(data) and at + length <= size, "a piece is beyond its chunk")
        f.seek(at)
        f.write(data[skip:skip + length])

# --- commands ---------------------------------------------------------------------------------
def command_list(vault, nodes, _):
    code = 0
    for node in nodes:
        before = None
        for name in vault.snapshots(node):
            try:
                s = Snapshot(vault, node, name)
            except Fault as e:
                code, before = e.code, None
                print(f"{node}  {name}  UNUSABLE: {e}")
                continue
            gap = "" if before in (None, s.meta.get("prev")) else "  (its predecessor is missing)"
            stores = (f"{st['name']} ({st['type']}, {st['bytes']} bytes)" if st["status"] == "ok"
                      else f"{st['name']} FAILED" for st in s.meta["stores"])
            print(f"{node}  {name}  {s.meta['time']}  {', '.join(stores)}{gap}")
            before = b2(s.data).hex()
    return code

def command_restore(vault, nodes, args):
    need(len(nodes) == 1, f"choose one with --node: {', '.join(nodes) or 'no such node'}", 7)
    found = [name for name in vault.snapshots(nodes[0])
             if args.snapshot in ("latest", name, str(int(name[:8])))]
    need(found, f"no snapshot {args.snapshot} of {nodes[0]}", 7)
    snapshot, code = Snapshot(vault, nodes[0], found[-1]), 0
    stores = [s for s in snapshot.meta["stores"] if not args.store or s["name"] in args.store]
    need(stores, "no such store in this snapshot", 7)
    manifests = {m["name"]: m for m in snapshot.private()["stores"]}
    packs, target = Packs(vault, snapshot), Target(args.to)
    print(f"{snapshot.what}: as of {snapshot.meta['time']}")
    for s in stores:
        try:
            with about(f"store {s['name']} is NOT restored whole"):
                need(s["status"] == "ok", f"it is not in this snapshot: {s.get('error')}", 3)
                rebuild = {"sqlite": restore_sqlite, "files": restore_files}[s["type"]]
                rebuild(vault, packs, manifests[s["name"]], target)
            print(f"store {s['name']}: restored to {args.to}{s['path']}")
        except Fault as e:                         # one bad store does not cost the others
            warn(e)
            code = max(code, e.code)
    target.finish()
    for what, times in target.skipped.items():
        warn(f"could not be set, {times} times: {what}")
        code = 6 if what.startswith("LINK") else code
    return code

def main():
    p = argparse.ArgumentParser(description="Restore an imvault vault without imvault.")
    p.add_argument("--vault", required=True, metavar="DIR")
    p.add_argument("--key", required=True, metavar="FILE", help="a restore key")
    p.add_argument("--passphrase-file", metavar="FILE", help="its first line; else it is asked for")
    p.add_argument("--node", metavar="NAME", help="needed when the vault holds several")
    commands = p.add_subparsers(dest="run", required=True)
    commands.add_parser("list", help="snapshots and what they hold")
    restore = commands.add_parser("restore", help="rebuild stores under --to")
    restore.add_argument("--snapshot", default="latest", metavar="SEQ|latest")
    restore.add_argument("--store", action="append", metavar="NAME", help="repeatable")
    restore.add_argument("--to", required=True, metavar="DIR", help="paths are kept below it")
    args = p.parse_args()
    try:
        with about(args.vault):
            vault = Vault(args.vault, args.key, args.passphrase_file)
            nodes = vault.names("snapshots", r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
        nodes = [n for n in nodes if args.node in (None, n)]
        return {"list": command_list, "restore": command_restore}[args.run](vault, nodes, args)
    except (Fault, OSError) as e:
        warn(e)
        return getattr(e, "code", 1)

if __name__ == "__main__":
    sys.exit(main())
