/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault export: a snapshot as an ordinary pax archive, the second way out of the vault. A file
 * gets its name only when it is whole; a stream that breaks ends without tar's end marker.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "cli/output.h"
#include "stores/store.h"
#include "vault/snapshot.h"

#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 10240 /* tar's own record size */

static const enum option_id options[] = { OPTION_AT, OPTION_STORE, OPTION_OUTPUT, OPTION_END };

static const char help[] =
    "imvault export: a snapshot as a tar archive any tar can read.\n"
    "\n"
    "  imvault export --key FILE [--vault URL] [--node NAME] [OPTION...]\n"
    "\n"
    "  --at WHEN         latest (default), a snapshot's number or name, or a time\n"
    "  --store NAME      only this store (may be repeated)\n"
    "  --output FILE|-   - (default) is standard output, which must be no terminal\n"
    "\n"
    "Paths are the original ones without the leading slash, with owner, mode, times,\n"
    "extended attributes, ACLs, links and holes as pax keeps them.\n"
    "The archive is NOT encrypted: it holds every message in the clear.\n"
    "\n"
    "Examples:\n"
    "  imvault export --key restore.key --output /mnt/im-01.tar\n"
    "  imvault export --key restore.key --store uploads | tar -tvf - | less\n";

struct sink {
	int fd;
	uint64_t bytes;
	size_t damaged;
	struct im_error error;
};

static ssize_t on_write(struct archive *a, void *context, const void *data, size_t len)
{
	struct sink *s = context;
	int rc = im_interrupt_check(&s->error);
	if (rc == 0)
		rc = im_write_full(s->fd, data, len, &s->error, "the archive");
	if (rc) {
		archive_set_error(a, EIO, "%s", s->error.text);
		return -1;
	}
	s->bytes += len;
	return (ssize_t)len;
}

static void on_damaged(struct rebuild *r, const char *text)
{
	struct sink *s = r->events->context;
	s->damaged++;
	output_problem("%s", text);
}

static void on_warn(void *context, const char *store, const char *text)
{
	(void)context;
	output_problem("store %s: %s", store, text);
}

static void on_progress(void *context, const char *store, uint64_t done, uint64_t total)
{
	(void)context, (void)store, (void)done, (void)total;
}

static bool is_wanted(const struct options *o, const char *name)
{
	for (size_t i = 0; i < o->store_count; i++)
		if (strcmp(o->stores[i], name) == 0)
			return true;
	return !o->store_count;
}

static int export_store(struct cli *cli, const struct snapshot *snapshot, struct fetcher *fetcher, json_t *manifest,
    struct archive *a, struct sink *sink, struct im_error *err)
{
	const char *name = json_string_value(json_object_get(manifest, "name"));
	const char *type = json_string_value(json_object_get(manifest, "type"));
	const struct store_ops *ops = type ? store_find(type) : NULL;
	const struct store_events events = { on_warn, on_progress, sink };
	struct rebuild r = { .snapshot = snapshot, .fetcher = fetcher, .manifest = manifest, .keyring = cli->vault->keyring,
		.events = &events, .damaged = on_damaged, .root_fd = -1 };
	if (!ops || !ops->export_tar)
		return im_fail(err, IM_EUSAGE, "store %s: this version cannot export type %s", name ? name : "?", type ? type : "?");
	int rc = ops->export_tar(&r, a, err);
	if (rc == 0)
		output_item(cli->json, "stores", name);
	return rc;
}

static int export_stores(struct cli *cli, const struct snapshot *snapshot, struct fetcher *fetcher, struct archive *a,
    struct sink *sink, struct im_error *err)
{
	const struct options *o = &cli->options;
	size_t i;
	json_t *manifest;
	for (size_t n = 0; n < o->store_count; n++)
		if (!snapshot_manifest(snapshot, o->stores[n]))
			return im_fail(err, IM_ENOTFOUND, "snapshot %" PRIu64 " has no store %s", snapshot->seq, o->stores[n]);
	json_array_foreach(json_object_get(snapshot->record.private_part, "stores"), i, manifest) {
		const char *name = json_string_value(json_object_get(manifest, "name"));
		if (!name || !is_wanted(o, name))
			continue;
		int rc = export_store(cli, snapshot, fetcher, manifest, a, sink, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int write_archive(struct cli *cli, const struct snapshot *snapshot, struct sink *sink, struct im_error *err)
{
	struct fetcher *fetcher = NULL;
	struct archive *a = archive_write_new();
	int rc = a ? fetcher_new(cli->vault->storage, cli->vault->keyring, &fetcher, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0 && (archive_write_set_format_pax(a) || archive_write_set_options(a, "hdrcharset=BINARY") || archive_write_set_bytes_per_block(a, BLOCK_BYTES) ||
	    archive_write_open(a, sink, NULL, on_write, NULL)))
		rc = im_fail(err, IM_EFAIL, "cannot begin the archive: %s", archive_error_string(a));
	struct im_error why = { 0 };
	if (rc == 0) {
		rc = export_stores(cli, snapshot, fetcher, a, sink, &why);
		/* A broken archive must not look finished: no end marker. */
		if (rc == 0 && archive_write_close(a) != ARCHIVE_OK)
			rc = im_fail(&why, IM_EIO, "cannot end the archive: %s", archive_error_string(a));
		else if (rc)
			archive_write_fail(a);
	}
	if (rc && sink->error.code)
		rc = im_fail(err, sink->error.code, "%s", sink->error.text);
	else if (rc)
		im_fail(err, rc, "%s", why.text);
	archive_write_free(a);
	fetcher_free(fetcher);
	if (rc == 0 && sink->damaged)
		rc = im_fail(err, IM_ECORRUPT, "the archive is incomplete: %zu parts are damaged; restore keeps what is sound", sink->damaged);
	return rc;
}

static int finish_file(struct sink *sink, const char *temporary, const char *path, int rc, struct im_error *err)
{
	if (rc == 0 && fsync(sink->fd))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot make %s durable", path);
	if (close(sink->fd) && rc == 0)
		rc = im_fail_errno(err, IM_EIO, errno, "cannot close %s", path);
	if (rc == 0 && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE))
		rc = errno == EEXIST ? im_fail(err, IM_EUSAGE, "%s exists already and is never overwritten", path)
		                     : im_fail_errno(err, IM_EIO, errno, "cannot rename to %s", path);
	if (rc)
		unlink(temporary);
	return rc;
}

static int export_to_file(struct cli *cli, const struct snapshot *snapshot, const char *path, struct sink *sink, struct im_error *err)
{
	const char *slash = strrchr(path, '/');
	auto_free char *folder = strndup(path, slash ? (size_t)(slash + 1 - path) : 0);
	auto_free char *temporary = folder ? im_format("%s.tmp-XXXXXX", folder) : NULL;
	if (access(path, F_OK) == 0)
		return im_fail(err, IM_EUSAGE, "%s exists already and is never overwritten", path);
	sink->fd = temporary ? mkostemp(temporary, O_CLOEXEC) : -1;
	if (sink->fd < 0)
		return im_fail_errno(err, IM_EUSAGE, errno, "cannot create a file for %s", path);
	return finish_file(sink, temporary, path, write_archive(cli, snapshot, sink, err), err);
}

static void on_note(void *context, const char *text)
{
	(void)context;
	output_problem("%s", text);
}

static int run(struct cli *cli, struct im_error *err)
{
	const struct options *o = &cli->options;
	bool to_file = o->output && strcmp(o->output, "-") != 0;
	struct sink sink = { .fd = STDOUT_FILENO };
	struct snapshot *snapshot = NULL;
	if (!to_file && isatty(STDOUT_FILENO))
		return im_fail(err, IM_EUSAGE, "export: standard output is a terminal; give --output FILE, or pipe it into tar");
	if (!to_file && o->json)
		return im_fail(err, IM_EUSAGE, "export: --json needs --output FILE, since the archive would take standard output");
	int rc = session_open(cli, SESSION_RESTORE_KEY, err);
	if (rc == 0)
		rc = snapshot_choose(cli->vault->storage, cli->vault->keyring, session_node(cli), o->at ? o->at : "latest", on_note, NULL,
		    &snapshot, err);
	if (rc)
		return rc;
	output_text(cli->json, "node", snapshot->node);
	output_text(cli->json, "snapshot", strrchr(snapshot->object, '/') + 1);
	output_instant(cli->json, "instant", snapshot->time_ms);
	rc = to_file ? export_to_file(cli, snapshot, o->output, &sink, err) : write_archive(cli, snapshot, &sink, err);
	output_integer(cli->json, "bytes_written", (int64_t)sink.bytes);
	snapshot_free(snapshot);
	if (rc == 0 && to_file) {
		char size[24];
		output_text(cli->json, "output", o->output);
		output_line(cli, "%s: %s, not encrypted", o->output, im_bytes_format(size, sizeof size, sink.bytes));
	}
	return rc;
}

const struct command cmd_export = { "export", "a snapshot as a tar archive", help, options, 0, run };
