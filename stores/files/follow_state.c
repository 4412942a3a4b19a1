/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the log ends. A position goes into every segment, which roles without content rights read
 * too, so it names no files: what is known of each lies in the local file "files" beside it. That file may be
 * older than the position (bytes are then captured twice, which harms nothing) but only by appends: a
 * rename captured twice would harm.
 */
#include "stores/files/follow_internal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "stores/files/segment.h"
#include "stores/files/walk.h"
#include "vault/crypto.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#define MAGIC "IMVFFIL1"
#define STATE_MAX_BYTES (1u << 30)
#define SAVE_EVERY_MS 5000
#define CLOCK_GRAIN_MS 20 /* file times lag behind the clock by as much */

/* --- position --- */

json_t *files_follow_position(const struct follower *f)
{
	const struct follow_state *s = &f->state;
	char id[2 * FILES_FOLLOW_ID_BYTES + 1];
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "id", im_hex(id, s->id, sizeof s->id), "dev",
	    (json_int_t)s->root.dev, "ino", (json_int_t)s->root.ino, "born_ns", (json_int_t)s->root.born_ns, "structure",
	    (json_int_t)s->structure, "files", (json_int_t)f->live_count, "bytes", (json_int_t)f->total_bytes, "complete_ms",
	    (json_int_t)s->complete_ms, "latest_ms", (json_int_t)s->latest_ms);
}

static int decode_position(const json_t *position, struct follow_state *ret, uint64_t *ret_bytes, struct im_error *err)
{
	const char *id;
	json_int_t dev, ino, born, structure, files, bytes, complete, latest;
	if (json_unpack((json_t *)position, "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "id", &id, "dev", &dev, "ino", &ino,
		"born_ns", &born, "structure", &structure, "files", &files, "bytes", &bytes, "complete_ms", &complete,
		"latest_ms", &latest) ||
	    !im_unhex(ret->id, sizeof ret->id, id))
		return im_fail(err, IM_ECORRUPT, "a position in a tree's log is malformed");
	ret->root = (struct follow_ident){ (uint64_t)dev, (uint64_t)ino, born };
	ret->structure = (uint64_t)structure;
	ret->complete_ms = complete;
	ret->latest_ms = latest;
	*ret_bytes = (uint64_t)bytes;
	return 0;
}

/* --- the file --- */

static char *state_path(const struct follower *f) { return im_path_join(f->folder, "files"); }

static void put_ident(struct im_buf *b, const struct follow_ident *i)
{
	im_buf_put_u64(b, i->dev);
	im_buf_put_u64(b, i->ino);
	im_buf_put_u64(b, (uint64_t)i->born_ns);
}

static struct follow_ident read_ident(struct im_reader *r)
{
	struct follow_ident i = { .dev = im_read_u64(r) };
	i.ino = im_read_u64(r);
	i.born_ns = (int64_t)im_read_u64(r);
	return i;
}

static void encode(const struct follower *f, struct im_buf *b)
{
	const struct follow_state *s = &f->state;
	im_buf_put(b, MAGIC, 8);
	im_buf_put(b, s->id, sizeof s->id);
	put_ident(b, &s->root);
	im_buf_put_u32(b, s->point);
	im_buf_put_u64(b, s->structure);
	im_buf_put_u32(b, (uint32_t)f->live_count);
	for (size_t i = 0; i < f->file_count; i++) {
		const struct follow_file *e = &f->files[i];
		if (!e->path)
			continue;
		im_buf_put_u16(b, (uint16_t)strlen(e->path));
		im_buf_put(b, e->path, strlen(e->path));
		put_ident(b, &e->ident);
		im_buf_put_u64(b, e->size);
		im_buf_put(b, e->check, sizeof e->check);
		im_buf_put_u64(b, (uint64_t)e->mtime_ns);
		im_buf_put_u8(b, e->lost);
	}
	uint8_t hash[CRYPTO_HASH_BYTES] = { 0 };
	if (!b->failed)
		crypto_hash(hash, b->data, b->len);
	im_buf_put(b, hash, sizeof hash);
}

int files_follow_save(struct follower *f, bool force, struct im_error *err)
{
	int64_t now = im_monotonic_ms();
	bool same_names = f->saved_ms && f->saved_structure == f->state.structure;
	f->saved_is_old = !same_names || f->saved_bytes != f->total_bytes;
	if (!force && same_names && (!f->saved_is_old || now - f->saved_ms < SAVE_EVERY_MS))
		return 0;
	auto_buf struct im_buf b = { 0 };
	auto_free char *path = state_path(f);
	encode(f, &b);
	if (!path || b.failed)
		return im_fail(err, IM_ENOMEM, "out of memory for what is known of the files that are followed");
	int rc = im_file_write(path, b.data, b.len, 0600, IM_FILE_REPLACE, err);
	if (rc)
		return rc;
	f->saved_structure = f->state.structure;
	f->saved_bytes = f->total_bytes;
	f->saved_ms = now;
	f->saved_is_old = false;
	return 0;
}

static bool decode_file(struct follower *f, struct im_reader *r, struct im_error *err)
{
	char path[FILES_PATH_MAX_BYTES + 1];
	struct follow_look look = { 0 };
	uint32_t file;
	size_t len = im_read_u16(r);
	if (len > FILES_PATH_MAX_BYTES || !im_read_copy(r, path, len))
		return false;
	path[len] = 0;
	look.ident = read_ident(r);
	if (memchr(path, 0, len) || !files_path_valid(path) || files_follow_add(f, path, &look, &file, err))
		return false;
	struct follow_file *e = &f->files[file];
	e->size = im_read_u64(r);
	im_read_copy(r, e->check, sizeof e->check);
	e->mtime_ns = (int64_t)im_read_u64(r);
	e->lost = im_read_u8(r);
	f->total_bytes += e->size;
	f->lost_count += e->lost;
	return !r->failed && e->size <= FILES_MAX_FILE_BYTES;
}

static bool decode(struct follower *f, const struct im_buf *b, struct follow_state *ret, struct im_error *err)
{
	uint8_t hash[CRYPTO_HASH_BYTES], magic[8];
	if (b->len < sizeof hash)
		return false;
	struct im_reader r = im_reader_of(b->data, b->len - sizeof hash);
	crypto_hash(hash, b->data, b->len - sizeof hash);
	if (memcmp(hash, b->data + b->len - sizeof hash, sizeof hash) || !im_read_copy(&r, magic, 8) || memcmp(magic, MAGIC, 8))
		return false;
	im_read_copy(&r, ret->id, sizeof ret->id);
	ret->root = read_ident(&r);
	ret->point = im_read_u32(&r);
	ret->structure = im_read_u64(&r);
	for (uint32_t left = im_read_u32(&r); left; left--)
		if (!decode_file(f, &r, err))
			return false;
	return !r.failed && !im_read_left(&r);
}

int files_follow_load(struct follower *f, const json_t *position, uint32_t point, struct im_error *err)
{
	struct follow_state want = { 0 }, have = { 0 };
	struct im_error why = { 0 };
	uint64_t bytes;
	auto_buf struct im_buf b = { 0 };
	auto_free char *path = state_path(f);
	int rc = decode_position(position, &want, &bytes, err);
	if (rc || !path)
		return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory");
	if (!files_follow_same(&want.root, &f->state.root))
		return im_fail(err, IM_EGAP, "%s is another folder than the one that was followed", f->store->path);
	rc = im_file_read(path, STATE_MAX_BYTES, &b, &why);
	if (rc)
		return im_fail(err, IM_EGAP, "what was known of the files of %s cannot be read: %s", f->store->path, why.text);
	if (!decode(f, &b, &have, &why))
		return im_fail(err, why.code == IM_ENOMEM ? IM_ENOMEM : IM_EGAP, "what was known of the files of %s is damaged", f->store->path);
	if (memcmp(have.id, want.id, sizeof have.id) || have.structure != want.structure || have.point > point)
		return im_fail(err, IM_EGAP, "what is known of the files of %s is not what the log ends with", f->store->path);
	f->state = want;
	f->state.point = point;
	f->saved_structure = want.structure;
	return 0;
}

/* --- without a follower --- */

static pthread_mutex_t attached_lock = PTHREAD_MUTEX_INITIALIZER;
static struct follower *attached_first;

void files_follow_register(struct follower *f, bool attached)
{
	pthread_mutex_lock(&attached_lock);
	struct follower **at = &attached_first;
	while (*at && *at != f)
		at = &(*at)->next;
	if (attached && !*at)
		*at = f;
	else if (!attached && *at)
		*at = f->next;
	pthread_mutex_unlock(&attached_lock);
}

static bool is_attached(const uint8_t id[FILES_FOLLOW_ID_BYTES])
{
	pthread_mutex_lock(&attached_lock);
	const struct follower *f = attached_first;
	while (f && memcmp(f->state.id, id, FILES_FOLLOW_ID_BYTES) != 0)
		f = f->next;
	pthread_mutex_unlock(&attached_lock);
	return f != NULL;
}

struct glance {
	const struct files_exclude *patterns;
	int64_t last_ms;
	uint64_t bytes;
};

static int on_entry(void *context, const char *path, const struct stat *st, struct im_error *err)
{
	struct glance *g = context;
	(void)err;
	if (!S_ISREG(st->st_mode) || !files_exclude_match(g->patterns, path, false))
		return 0;
	int64_t changed = (int64_t)st->st_ctim.tv_sec * 1000 + st->st_ctim.tv_nsec / 1000000;
	if (changed > g->last_ms)
		g->last_ms = changed;
	g->bytes += (uint64_t)st->st_size;
	return 0;
}

static void on_fault(void *context, const char *path, int errno_value) { (void)context, (void)path, (void)errno_value; }

int files_follow_moved(const struct im_config_store *store, const json_t *position, bool *ret_moved, int64_t *ret_last_ms,
    struct im_error *err)
{
	struct follow_state at = { 0 };
	struct files_exclude exclude = { 0 }, patterns = { 0 };
	uint64_t bytes;
	int rc = decode_position(position, &at, &bytes, err);
	if (!rc && is_attached(at.id)) {
		*ret_moved = false;
		*ret_last_ms = at.complete_ms;
		return 0;
	}
	if (!rc)
		rc = files_exclude_init(&exclude, NULL, store, err);
	if (!rc)
		rc = files_exclude_init_key(&patterns, store, "follow", err);
	auto_close int fd = rc ? -1 : open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!rc && fd < 0)
		rc = im_fail(err, IM_ENOTFOUND, "cannot open %s", store->path);
	struct glance g = { .patterns = &patterns };
	struct files_walk w = { .root_fd = fd, .exclude = &exclude, .entry = on_entry, .fault = on_fault, .context = &g };
	if (!rc)
		rc = files_walk_run(&w, err);
	files_exclude_clear(&exclude);
	files_exclude_clear(&patterns);
	if (rc)
		return rc;
	*ret_last_ms = g.last_ms;
	*ret_moved = g.last_ms + CLOCK_GRAIN_MS > at.complete_ms || g.bytes > bytes;
	return 0;
}
