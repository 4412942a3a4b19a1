# SPDX-License-Identifier: Apache-2.0
"""However many accesses wait at the same moment, each is answered when its own part has arrived."""
import random
import shutil
from pathlib import Path

import instant
from imvault import OK, Node, check, main

FILE_BYTES = 100_000_000
RATE_MB = 10
READERS, READS = 8, 4

# Reads single bytes in many threads, all of them at once, and compares them with a copy.
READ = """\
import os, random, sys, threading
path, copy, readers, reads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
together, wrong = threading.Barrier(readers), []

def read(seed):
    rng, fd, good = random.Random(seed), os.open(path, os.O_RDONLY), os.open(copy, os.O_RDONLY)
    for _ in range(reads):
        offset = rng.randrange(os.fstat(good).st_size)
        together.wait()
        if os.pread(fd, 1, offset) != os.pread(good, 1, offset):
            wrong.append(offset)

threads = [threading.Thread(target=read, args=(n,)) for n in range(readers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(1 if wrong else 0)
"""


async def instant__accesses_at_the_same_moment_are_all_answered():
    instant.require()
    with instant.scratch() as folder:
        node, data, copy = Node(folder), Path(folder) / "data", Path(folder) / "copy"
        data.mkdir()
        copy.write_bytes(random.Random(1).randbytes(FILE_BYTES))
        shutil.copy(copy, data / "file")
        node.setup(data={"type": "files", "path": data})
        (await node.backup()).expect(OK)
        shutil.rmtree(data)
        node.lose_machine()
        program = folder / "read.py"
        program.write_text(READ)
        command = f"/usr/bin/python3 '{program}' '{data}/file' '{copy}' {READERS} {READS}"
        with instant.far_vault(node, RATE_MB) as vault:
            async with instant.restoring(node, vault, "--exec", command) as restore:
                record = await instant.until("a folder that is served",
                                             lambda: instant.record_of(data), restore)
                answer = (await restore).expect(OK)
        instant.check_restored(answer, data, record)
        check(answer.json["instant"]["accesses"] >= READERS, "too few accesses to prove anything")
        await instant.check_ordinary(folder, data)
        check((data / "file").read_bytes() == copy.read_bytes(), "the file differs")


main(instant__accesses_at_the_same_moment_are_all_answered)
