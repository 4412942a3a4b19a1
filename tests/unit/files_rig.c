/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rig. Its rebuild writes pieces as they are declared: slow and simple, so that what is tested
 * is the store alone.
 */
#include "files_rig.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "stores/files/links.h"
#include "stores/files/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>

#include <cmocka.h>

struct rig_file {
	int fd;
	struct rebuild_file meta;
};

static void append_line(char *text, size_t size, const char *line)
{
	size_t n = strlen(text);
	snprintf(text + n, size - n, "%s\n", line);
}

static void on_warn(void *context, const char *store, const char *text)
{
	struct files_rig *r = context;
	(void)store;
	append_line(r->warnings, sizeof r->warnings, text);
	if (r->on_warning)
		r->on_warning(r, text);
}

int files_rig_setup(void **state)
{
	struct files_rig *r = calloc(1, sizeof *r);
	fixture_start(&r->f);
	snprintf(r->source, sizeof r->source, "%s/source", r->f.dir);
	assert_int_equal(mkdir(r->source, 0755), 0);
	r->stores[0] = (struct im_config_store){
		.name = "uploads", .type = "files", .path = r->source, .priority = 1, .pairs = r->pairs
	};
	r->config = (struct im_config){ .node_name = "im-01",
		.vault_url = r->f.vault_dir,
		.state_dir = r->f.state_dir,
		.compression_level = 1,
		.stores = r->stores,
		.store_count = 1 };
	r->events = (struct store_events){ .warn = on_warn, .context = r };
	*state = r;
	return 0;
}

static void drop_snapshot(struct files_rig *r)
{
	json_decref(r->result.manifest);
	json_decref(r->result.log);
	free(r->result.packs);
	free(r->snapshot.packs);
	r->result = (struct snapshot_result){ 0 };
	r->snapshot = (struct snapshot){ 0 };
}

int files_rig_teardown(void **state)
{
	struct files_rig *r = *state;
	drop_snapshot(r);
	fixture_stop(&r->f);
	free(r);
	return 0;
}

void files_rig_option(struct files_rig *r, const char *key, const char *value)
{
	r->pairs[r->stores[0].pair_count++] = (struct im_config_pair){ .key = (char *)key, .value = (char *)value };
}

char *files_rig_path(struct files_rig *r, const char *path)
{
	static char text[8192];
	snprintf(text, sizeof text, "%s/%s", r->source, path);
	return text;
}

void files_rig_write(struct files_rig *r, const char *path, const void *data, size_t len)
{
	char *whole = files_rig_path(r, path);
	for (char *p = whole + strlen(r->source) + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		mkdir(whole, 0755);
		*p = '/';
	}
	auto_close int fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	assert_ok(im_write_full(fd, data, len, NULL, whole), &(struct im_error){ 0 });
}

void files_rig_settle(void) { nanosleep(&(struct timespec){ .tv_sec = 3 }, NULL); }

static void take_packs(struct files_rig *r)
{
	struct im_error err = { 0 };
	r->snapshot.pack_count = r->result.pack_count;
	r->snapshot.packs = calloc(r->result.pack_count + 1, sizeof *r->snapshot.packs);
	for (size_t i = 0; i < r->result.pack_count; i++)
		assert_ok(state_pack_get(r->f.state, r->result.packs[i], &r->snapshot.packs[i], &err), &err);
}

int files_rig_snapshot(struct files_rig *r, bool full, struct im_error *err)
{
	struct im_error e = { 0 };
	struct packer *packer;
	struct state_head head = { .seq = ++r->rounds, .epoch = "0123456789abcdef", .keyring_generation = 1 };
	r->warnings[0] = 0;
	drop_snapshot(r);
	assert_ok(packer_new(r->f.node->storage, r->f.node->keyring, r->f.state, "im-01", 1, &packer, &e), &e);
	struct snapshot_request q = { .config = &r->config,
		.store = &r->stores[0],
		.packer = packer,
		.state = r->f.state,
		.keyring = r->f.node->keyring,
		.full = full,
		.anchor = r->anchor,
		.events = &r->events };
	int rc = files_snapshot(&q, &r->result, err);
	if (!rc) {
		assert_ok(packer_finish(packer, &e), &e);
		assert_ok(state_commit(r->f.state, &head, &e), &e);
		take_packs(r);
	}
	packer_free(packer);
	return rc;
}

/* struct rebuild. */

static int on_file(struct rebuild *b, const struct rebuild_file *file, uint32_t *ret_number, struct im_error *err)
{
	struct files_rig *r = (struct files_rig *)((char *)b - offsetof(struct files_rig, rebuild));
	char path[8192];
	(void)err;
	snprintf(path, sizeof path, "%s/%s", r->target, file->path);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "test: cannot make %s", path);
	assert_int_equal(ftruncate(fd, (off_t)file->size_bytes), 0);
	r->files = realloc(r->files, (r->file_count + 1) * sizeof *r->files);
	r->files[r->file_count] = (struct rig_file){ .fd = fd, .meta = *file };
	*ret_number = (uint32_t)r->file_count++;
	return 0;
}

static int on_piece(struct rebuild *b, uint32_t file, uint64_t file_offset, uint32_t len, enum entry_type type,
    const struct im_ref *ref, uint32_t skip, const uint8_t id[32], struct im_error *err)
{
	struct files_rig *r = (struct files_rig *)((char *)b - offsetof(struct files_rig, rebuild));
	auto_buf struct im_buf bytes = { 0 };
	(void)id;
	const struct pack_info *pack = snapshot_pack(b->snapshot, ref->pack);
	if (!pack)
		return im_fail(err, IM_ECORRUPT, "no such pack");
	int rc = fetch_one(b->fetcher, pack, type, ref, &bytes, err);
	if (rc)
		return rc;
	assert_true(bytes.len >= (size_t)skip + len);
	return im_pwrite_full(r->files[file].fd, bytes.data + skip, len, file_offset, err, "test");
}

static int on_write(
    struct rebuild *b, uint32_t file, uint64_t file_offset, const void *data, uint32_t len, struct im_error *err)
{
	struct files_rig *r = (struct files_rig *)((char *)b - offsetof(struct files_rig, rebuild));
	assert_true(file < r->file_count && file_offset + len <= r->files[file].meta.size_bytes);
	return im_pwrite_full(r->files[file].fd, data, len, file_offset, err, "test");
}

static int on_folder(struct rebuild *b, const char *path, struct im_error *err)
{
	struct files_rig *r = (struct files_rig *)((char *)b - offsetof(struct files_rig, rebuild));
	char whole[8192];
	snprintf(whole, sizeof whole, "%s/%s", r->target, path);
	return im_mkdirs(whole, 0700, err);
}

static void on_damaged(struct rebuild *b, const char *text)
{
	struct files_rig *r = (struct files_rig *)((char *)b - offsetof(struct files_rig, rebuild));
	append_line(r->damage, sizeof r->damage, text);
}

static void complete_files(struct files_rig *r)
{
	for (size_t i = 0; i < r->file_count; i++) {
		struct rig_file *f = &r->files[i];
		int64_t ns = f->meta.mtime_ns, s = ns / 1000000000 - (ns % 1000000000 < 0);
		struct im_error why = { 0 };
		if (f->meta.prove && f->meta.prove(f->meta.context, f->fd, NULL, &why))
			append_line(r->damage, sizeof r->damage, why.text);
		struct timespec t = { .tv_sec = s, .tv_nsec = ns - s * 1000000000 };
		if (f->meta.set_owner)
			assert_int_equal(fchown(f->fd, f->meta.uid, f->meta.gid), 0);
		assert_int_equal(fchmod(f->fd, f->meta.mode), 0);
		assert_int_equal(futimens(f->fd, (struct timespec[2]){ t, t }), 0);
		close(f->fd);
	}
	free(r->files);
	r->files = NULL;
	r->file_count = 0;
}

int files_rig_restore_with(struct files_rig *r, const char *path_filter, char *ret_root,
    void (*between)(void *context, int root_fd), void *context, struct im_error *err)
{
	struct im_error e = { 0 };
	struct fetcher *fetcher;
	r->damage[0] = 0;
	snprintf(r->target, sizeof r->target, "%s/target-XXXXXX", r->f.dir);
	assert_non_null(mkdtemp(r->target));
	if (ret_root)
		sprintf(ret_root, "%s%s", r->target, r->source);
	auto_close int root_fd = open(r->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_free char *parents = im_format("%s%s", r->target, r->f.dir);
	assert_ok(im_mkdirs(parents, 0700, &e), &e);
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &e), &e);
	r->rebuild = (struct rebuild){ .snapshot = &r->snapshot,
		.fetcher = fetcher,
		.manifest = r->result.manifest,
		.keyring = r->f.restore->keyring,
		.path_filter = path_filter,
		.events = &r->events,
		.file = on_file,
		.piece = on_piece,
		.write = on_write,
		.log = r->log,
		.folder = on_folder,
		.damaged = on_damaged,
		.root_fd = root_fd };
	int rc = files_plan(&r->rebuild, err);
	if (!rc)
		assert_int_equal(r->rebuild.log_taken, r->log != NULL);
	complete_files(r);
	if (!rc && between)
		between(context, root_fd);
	if (!rc)
		rc = files_complete(&r->rebuild, err);
	files_finish(&r->rebuild, rc != 0, NULL);
	fetcher_free(fetcher);
	return rc;
}

int files_rig_restore(struct files_rig *r, const char *path_filter, char *ret_root, struct im_error *err)
{
	return files_rig_restore_with(r, path_filter, ret_root, NULL, NULL, err);
}

void files_rig_forge(struct files_rig *r, const void *segment, size_t len)
{
	struct im_error e = { 0 };
	struct packer *packer;
	struct codec *codec;
	struct im_ref ref;
	auto_buf struct im_buf refs = { 0 };
	drop_snapshot(r);
	assert_ok(packer_new(r->f.node->storage, r->f.node->keyring, r->f.state, "im-01", 1, &packer, &e), &e);
	assert_ok(codec_new(1, &codec, &e), &e);
	assert_ok(packer_put(packer, codec, ENTRY_TREE, NULL, segment, len, &ref, NULL, &e), &e);
	assert_ok(packer_finish(packer, &e), &e);
	packer_free(packer);
	codec_free(codec);
	ref_put(&refs, ref);
	auto_free char *text = im_base64(refs.data, refs.len);
	r->result.manifest =
	    json_pack("{s:s, s:s, s:s, s:s}", "name", "uploads", "type", "files", "path", r->source, "segments", text);
	r->result.packs = malloc(sizeof *r->result.packs);
	r->result.packs[0] = ref.pack;
	r->result.pack_count = 1;
	take_packs(r);
}

/* Description of a tree. */

struct describer {
	int root_fd;
	struct files_links links;
	struct im_buf text;
};

static void say(struct describer *d, const char *format, ...)
{
	char line[8192];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	im_buf_put(&d->text, line, (size_t)n);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void describe_attributes(struct describer *d, const char *at)
{
	char names[8192], value[65536], hex[2 * 65536 + 1], *sorted[128];
	ssize_t len = llistxattr(at, names, sizeof names);
	size_t n = 0;
	for (ssize_t i = 0; i < len && n < 128; i += (ssize_t)strlen(names + i) + 1)
		sorted[n++] = names + i;
	qsort(sorted, n, sizeof *sorted, compare_names);
	for (size_t i = 0; i < n; i++) {
		ssize_t v = lgetxattr(at, sorted[i], value, sizeof value);
		say(d, " %s=", sorted[i]);
		im_hex(hex, value, v < 0 ? 0 : (size_t)v);
		im_buf_put(&d->text, hex, strlen(hex));
	}
}

static void describe_content(struct describer *d, const char *at)
{
	struct crypto_hasher h;
	uint8_t hash[32], bytes[65536];
	char hex[65];
	auto_close int fd = open(at, O_RDONLY | O_NOFOLLOW);
	crypto_hasher_begin(&h);
	for (ssize_t n; (n = read(fd, bytes, sizeof bytes)) > 0;)
		crypto_hasher_add(&h, bytes, (size_t)n);
	crypto_hasher_end(&h, hash);
	say(d, " content=%s", im_hex(hex, hash, 8));
}

static int describe_entry(void *context, const char *path, const struct stat *st, struct im_error *err)
{
	struct describer *d = context;
	char at[8192], target[4096], *first = NULL;
	(void)err;
	snprintf(at, sizeof at, "/proc/self/fd/%d/%s", d->root_fd, path);
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1)
		files_links_note(&d->links, st, path, &first);
	say(d, "%s: %o %u:%u %lld.%09ld", path, st->st_mode, st->st_uid, st->st_gid, (long long)st->st_mtim.tv_sec,
	    st->st_mtim.tv_nsec);
	if (first)
		say(d, " = %s", first);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		say(d, " device %llx", (unsigned long long)st->st_rdev);
	ssize_t n = S_ISLNK(st->st_mode) ? readlink(at, target, sizeof target - 1) : 0;
	if (n > 0)
		say(d, " -> %.*s", (int)n, target);
	describe_attributes(d, at);
	if (S_ISREG(st->st_mode)) {
		say(d, " size %lld", (long long)st->st_size);
		describe_content(d, at);
	}
	say(d, "\n");
	return 0;
}

static void describe_fault(void *context, const char *path, int errno_value)
{
	say(context, "%s: cannot read: %s\n", path, strerror(errno_value));
}

char *files_rig_describe(const char *root)
{
	struct im_error err = { 0 };
	auto_close int fd = open(root, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return strdup("not there");
	struct describer d = { .root_fd = fd };
	struct files_walk w = { .root_fd = fd, .entry = describe_entry, .fault = describe_fault, .context = &d };
	assert_ok(files_walk_run(&w, &err), &err);
	files_links_clear(&d.links);
	im_buf_put_u8(&d.text, 0);
	return (char *)d.text.data;
}
