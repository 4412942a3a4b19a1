# SPDX-License-Identifier: Apache-2.0
"""A Prosody whose archive is still arriving answers logins and archive queries at once, and
archives what is sent before and after the switch."""
import shutil

import instant
from imvault import OK, Node, check, main, make_store, running, stores_of
from prosody import missing_from_archives, process_state

ARCHIVE_MB = 150
RATE_MB = 4  # the archive compresses to a fifth
TO = ("online", "offline")


def make_archive(path):
    make_store(path, ARCHIVE_MB, "--wal")


async def instant__a_prosody_archives_through_the_switch():
    instant.require()
    with instant.scratch() as folder, running(folder, "wal", make_database=make_archive) as server:
        node = Node(folder)
        node.setup(**stores_of(server))
        server.add_uploads(20)
        before, _ = await instant.send(server, "before", TO)
        wanted = await instant.newest_of_all(server)
        server.kill()
        (await node.backup()).expect(OK)
        shutil.rmtree(server.root)
        node.lose_machine()

        with instant.far_vault(node, RATE_MB) as vault:
            data = server.database.parent
            start = str(server.start_script)
            async with instant.restoring(node, vault, "--exec", start) as restore:
                await instant.until("prosody", server.pidfile.exists, restore)
                pid = server.pid()
                await instant.until("an open port", lambda: instant.listens(server.port), restore)
                check(await instant.newest_of_all(server) == wanted, "the newest messages differ")
                record = instant.check_served(data, "login and archive query")
                instant.check_keeps("prosody", pid, record)
                during, early = await instant.send(server, "during", TO, restore)
                answer = (await restore).expect(OK)
        instant.check_restored(answer, data, record)
        print(f"{early} messages before the end of the restore, {len(during.sent) - early} after")
        check(server.pid() == pid and process_state(pid) in ("S", "R"), "prosody was restarted")
        for sender in (before, during):
            missing = await missing_from_archives(server, sender.sent, sender.acked)
            check(not missing, f"not in the archive: {missing}")
        check(not server.trouble(), f"prosody complains: {server.trouble()[:3]}")
        server.kill()
        await instant.check_ordinary(folder, data)
        instant.check_sqlite(server.database)


main(instant__a_prosody_archives_through_the_switch)
