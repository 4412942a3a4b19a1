/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading packs: each must hash to its name (any key or none); with a restore key every entry is
 * decrypted and decompressed too. The share read moves on by name with every run: the cursor is
 * the last name read, so N runs of 100/N percent read everything, whatever was added meanwhile.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/workers.h"
#include "vault/fetch.h"
#include "verify/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { STEP_BYTES = 4 << 20, WORKERS_MAX = 4 };

struct reader {
	struct verify *v;
	struct im_workers *workers;
	uint8_t *buffers[WORKERS_MAX];
	struct codec *codecs[WORKERS_MAX];
};

struct job {
	struct reader *reader;
	struct verify_pack *pack;
};

struct opened { /* one pack being looked into */
	struct verify_pack *pack;
	const char *object;
	struct pack_header header;
	struct pack_key key;
	struct pack_dict *dict;
	struct im_buf head;
	struct pack_entry *entries;
	uint32_t count;
};

static bool ends_all(int code)
{
	return code == IM_EUNREACHABLE || code == IM_EINTERRUPTED || code == IM_ENOMEM;
}

static void damage(struct verify *v, struct verify_pack *p, const char *object, const char *text)
{
	size_t row = verify_damage_add(v, object, "%s", text);
	if (p->damage == VERIFY_NO_DAMAGE)
		p->damage = row;
}

/* Hash of the whole object against its name. */
static int check_hash(struct verify *v, struct verify_pack *p, const char *object, uint8_t *buffer,
    struct im_error *err)
{
	struct crypto_hasher hasher;
	uint8_t hash[32];
	struct im_error why = { 0 };
	crypto_hasher_begin(&hasher);
	for (uint64_t at = 0; at < p->found_bytes;) {
		size_t n = p->found_bytes - at < STEP_BYTES ? (size_t)(p->found_bytes - at) :
							      STEP_BYTES;
		int rc = im_interrupt_check(&why);
		if (rc == 0)
			rc = storage_read(v->storage, object, at, buffer, n, &why);
		if (rc && ends_all(rc))
			return im_fail(err, rc, "%s", why.text);
		if (rc) {
			damage(v, p, object, why.text);
			return 0;
		}
		crypto_hasher_add(&hasher, buffer, n);
		at += n;
		verify_progress(v, n);
	}
	crypto_hasher_end(&hasher, hash);
	if (memcmp(hash, p->name, 32))
		damage(v, p, object,
		    "its content does not hash to its name: it was changed or damaged");
	return 0;
}

static void opened_clear(struct opened *o)
{
	pack_dict_free(o->dict);
	im_buf_free(&o->head);
	free(o->entries);
	crypto_wipe(&o->key, sizeof o->key);
}

static int read_head(struct verify *v, struct opened *o, struct im_error *err)
{
	size_t len = PACK_HEADER_BYTES;
	for (int pass = 0; pass < 2; pass++) {
		o->head.len = 0;
		if (len > o->pack->found_bytes)
			return im_fail(err, IM_ECORRUPT, "it is shorter than its header");
		uint8_t *p = im_buf_grow(&o->head, len);
		int rc = p ? storage_read(v->storage, o->object, 0, p, len, err) :
			     im_fail(err, IM_ENOMEM, "out of memory");
		if (rc == 0)
			rc = pack_header_decode(
			    keyring_vault_id(v->keyring), p, len, &o->header, err);
		if (rc)
			return rc;
		len = o->header.header_bytes;
	}
	return o->header.recipients ? 0 : im_fail(err, IM_ECORRUPT, "its header is not readable");
}

static int read_entry(struct verify *v, struct opened *o, struct codec *c, const struct im_ref *ref,
    enum entry_type type, uint8_t *ret_plain, struct im_error *err)
{
	if (ref->plain > ENTRY_MAX_META_BYTES || ref->stored > ENTRY_MAX_META_BYTES + (1 << 20) ||
	    (uint64_t)ref->offset + ref->stored > o->pack->found_bytes)
		return im_fail(err, IM_ECORRUPT,
		    "an entry at offset %" PRIu32 " reaches beyond its end", ref->offset);
	auto_free uint8_t *sealed = malloc(ref->stored ? ref->stored : 1);
	auto_free uint8_t *own = ret_plain ? NULL : malloc(ref->plain ? ref->plain : 1);
	if (!sealed || (!own && !ret_plain))
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = storage_read(v->storage, o->object, ref->offset, sealed, ref->stored, err);
	return rc ? rc :
		    entry_decode(c, &o->key, type == ENTRY_DICT ? NULL : o->dict, type, ref->slot,
			sealed, ref->stored, ret_plain ? ret_plain : own, ref->plain, err);
}

static int open_dict(struct verify *v, struct opened *o, struct codec *c, struct im_error *err)
{
	struct im_ref ref = { .offset = (uint32_t)o->header.header_bytes,
		.stored = o->header.dict_stored,
		.plain = o->header.dict_plain };
	if (!ref.stored)
		return 0;
	if (ref.plain > ENTRY_MAX_PLAIN_BYTES)
		return im_fail(err, IM_ECORRUPT, "its dictionary is too large");
	auto_free uint8_t *plain = malloc(ref.plain ? ref.plain : 1);
	int rc = plain ? read_entry(v, o, c, &ref, ENTRY_DICT, plain, err) :
			 im_fail(err, IM_ENOMEM, "out of memory");
	return rc ? rc : pack_dict_new(plain, ref.plain, 0, &o->dict, err);
}

static int read_trailer(struct verify *v, struct opened *o, struct im_error *err)
{
	uint8_t footer[PACK_FOOTER_BYTES];
	uint64_t offset;
	uint32_t len;
	if (o->pack->found_bytes < PACK_FOOTER_BYTES)
		return im_fail(err, IM_ECORRUPT, "it is shorter than its footer");
	int rc = storage_read(v->storage, o->object, o->pack->found_bytes - sizeof footer, footer,
	    sizeof footer, err);
	if (rc == 0)
		rc = pack_footer_decode(
		    footer, o->pack->found_bytes, &offset, &len, &o->count, err);
	if (rc)
		return rc;
	auto_free uint8_t *trailer = malloc(len ? len : 1);
	rc = trailer ? storage_read(v->storage, o->object, offset, trailer, len, err) :
		       im_fail(err, IM_ENOMEM, "out of memory");
	return rc ?
	    rc :
	    pack_trailer_decode(v->keyring, &o->header, trailer, len, o->count, &o->entries, err);
}

static int note_bad(struct verify_pack *p, uint32_t offset, struct im_error *err)
{
	uint32_t *grown = realloc(p->bad, (p->bad_count + 1) * sizeof *grown);
	if (!grown)
		return im_fail(err, IM_ENOMEM, "out of memory");
	p->bad = grown;
	grown[p->bad_count++] = offset;
	return 0;
}

static int decode_entries(struct verify *v, struct opened *o, struct codec *c, struct im_error *err)
{
	uint64_t good = 0;
	for (uint32_t i = 0; i < o->count; i++) {
		const struct pack_entry *e = &o->entries[i];
		struct im_error why = { 0 };
		int rc = im_interrupt_check(&why);
		if (rc == 0)
			rc = read_entry(v, o, c, &e->ref, e->type, NULL, &why);
		if (rc && ends_all(rc))
			return im_fail(err, rc, "%s", why.text);
		if (rc && note_bad(o->pack, e->ref.offset, err))
			return IM_ENOMEM;
		good += rc == 0;
	}
	pthread_mutex_lock(&v->mutex);
	v->result->entries_decoded += good;
	pthread_mutex_unlock(&v->mutex);
	o->pack->entries_known = true;
	if (o->pack->bad_count && o->pack->damage == VERIFY_NO_DAMAGE)
		o->pack->damage = verify_damage_add(v, o->object,
		    "%zu of its %" PRIu32
		    " entries cannot be decoded, though it hashes to its name: it was written wrong",
		    o->pack->bad_count, o->count);
	return 0;
}

/* Opens the pack and decodes every entry. A failure is damage of this pack. */
static int look_inside(struct verify *v, struct verify_pack *p, const char *object, struct codec *c,
    struct im_error *err)
{
	IM_CLEANUP(opened_clear) struct opened o = { .pack = p, .object = object };
	struct im_error why = { 0 };
	bool was_damaged = p->damage != VERIFY_NO_DAMAGE;
	int rc = read_head(v, &o, &why);
	if (rc == 0)
		rc = pack_key_open(
		    v->keyring, &o.header, p->has_commitment ? p->commitment : NULL, &o.key, &why);
	if (rc == 0)
		rc = open_dict(v, &o, c, &why);
	if (rc == 0)
		rc = read_trailer(v, &o, &why);
	if (rc == 0)
		return decode_entries(v, &o, c, err);
	if (ends_all(rc))
		return im_fail(err, rc, "%s", why.text);
	if (rc == IM_EKEY && !was_damaged)
		verify_warn(
		    v, "%s cannot be opened with this key, only hashed: %s", object, why.text);
	else if (!was_damaged)
		damage(v, p, object, why.text);
	return 0;
}

static int read_pack(void *context, unsigned worker, bool cancelled, struct im_error *err)
{
	struct job *j = context;
	struct reader *r = j->reader;
	struct verify *v = r->v;
	struct verify_pack *p = j->pack;
	char object[80];
	free(j);
	if (cancelled)
		return 0;
	fetch_pack_object(object, p->name);
	int rc = check_hash(v, p, object, r->buffers[worker], err);
	if (rc == 0 && v->can_decrypt)
		rc = look_inside(v, p, object, r->codecs[worker], err);
	p->read = rc == 0;
	pthread_mutex_lock(&v->mutex);
	v->result->packs_read++;
	v->result->bytes_read += p->found_bytes;
	pthread_mutex_unlock(&v->mutex);
	return rc;
}

/* The cursor. */

static char *cursor_path(const struct verify *v)
{
	return v->request->state_dir ? im_path_join(v->request->state_dir, "verify-cursor") : NULL;
}

/* The row after the one the last run ended with. */
static size_t cursor_load(struct verify *v)
{
	auto_free char *path = cursor_path(v);
	auto_buf struct im_buf b = { 0 };
	uint8_t name[32];
	char hex[65] = "";
	if (!path || im_file_read(path, 4096, &b, NULL) || b.len < 64)
		return 0;
	memcpy(hex, b.data, 64);
	if (!im_unhex(name, sizeof name, hex))
		return 0;
	size_t i = 0;
	while (i < v->pack_count && memcmp(v->packs[i].name, name, 32) <= 0)
		i++;
	return i == v->pack_count ? 0 : i;
}

static void cursor_save(struct verify *v, size_t last)
{
	auto_free char *path = cursor_path(v);
	struct im_error why = { 0 };
	char text[66];
	if (!path)
		return;
	im_hex(text, v->packs[last].name, 32);
	strcat(text, "\n");
	int rc = im_mkdirs(v->request->state_dir, 0700, &why);
	if (rc == 0)
		rc = im_file_write(path, text, strlen(text), 0600, IM_FILE_REPLACE, &why);
	if (rc)
		verify_warn(v, "the next verify begins with the same packs again: %s", why.text);
}

static bool is_due(const struct verify *v, const struct verify_pack *p)
{
	/* with one node asked for, other nodes' packs are not our business; else all that is there
	 * is read */
	return p->found && (p->needed || !v->request->node || v->keyless);
}

static uint64_t sum_due(const struct verify *v)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < v->pack_count; i++)
		sum += is_due(v, &v->packs[i]) ? v->packs[i].found_bytes : 0;
	return sum;
}

static int submit_share(struct reader *r, size_t *ret_last, struct im_error *err)
{
	struct verify *v = r->v;
	size_t start = cursor_load(v);
	uint64_t given = 0;
	for (size_t n = 0; n < v->pack_count && given < v->due_bytes; n++) {
		struct verify_pack *p = &v->packs[(start + n) % v->pack_count];
		int rc = im_interrupt_check(err);
		if (rc || im_workers_failed(r->workers))
			return rc;
		*ret_last = (size_t)(p - v->packs);
		if (!is_due(v, p))
			continue;
		struct job *j = calloc(1, sizeof *j);
		if (!j)
			return im_fail(err, IM_ENOMEM, "out of memory");
		*j = (struct job){ r, p };
		given += p->found_bytes ? p->found_bytes : 1;
		im_workers_submit(r->workers, j);
	}
	return 0;
}

static int reader_start(struct reader *r, struct im_error *err)
{
	unsigned count = im_cpu_count() < WORKERS_MAX ? im_cpu_count() : WORKERS_MAX;
	for (unsigned i = 0; i < count; i++) {
		int rc = codec_new(1, &r->codecs[i], err);
		r->buffers[i] = malloc(STEP_BYTES);
		if (rc || !r->buffers[i])
			return rc ? rc : im_fail(err, IM_ENOMEM, "out of memory");
	}
	return im_workers_new(count, count, read_pack, &r->workers, err);
}

static void reader_clear(struct reader *r)
{
	im_workers_free(r->workers);
	for (unsigned i = 0; i < WORKERS_MAX; i++) {
		codec_free(r->codecs[i]);
		free(r->buffers[i]);
	}
}

int verify_content(struct verify *v, struct im_error *err)
{
	unsigned percent = v->request->read_percent > 100 ? 100 : v->request->read_percent;
	uint64_t sum = sum_due(v);
	if (!percent || !v->pack_count)
		return 0;
	verify_phase(v, "read");
	v->due_bytes = percent == 100 ? sum : sum / 100 * percent + sum % 100 * percent / 100 + 1;
	IM_CLEANUP(reader_clear) struct reader r = { .v = v };
	size_t last = 0;
	int rc = reader_start(&r, err);
	if (rc)
		return rc;
	rc = submit_share(&r, &last, err);
	int rc_read = im_workers_wait(r.workers, err);
	if (rc == 0 && rc_read == 0)
		cursor_save(v, last);
	return rc ? rc : rc_read;
}
