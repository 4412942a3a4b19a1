/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool on disk: what a crash at each step leaves, the order of shipping, damage, hostile heads.
 */
#include "backup/spool.h"

#include "base/file.h"
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EPOCH "0123456789abcdef0123"

struct bench {
	char dir[64];
	struct spool *spool;
	struct spool_head head;
	bool lost;
	char why[256];
};

static void open_again(struct bench *b)
{
	struct im_error err = { 0 };
	spool_close(b->spool);
	spool_head_clear(&b->head);
	b->spool = NULL;
	assert_ok(spool_open(b->dir, "im-01", "chat", &b->spool, &b->head, &b->lost, b->why, &err), &err);
}

static void start(struct bench *b)
{
	memset(b, 0, sizeof *b);
	strcpy(b->dir, "/tmp/imvault-spool-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	open_again(b);
	assert_false(b->lost);
	assert_int_equal(b->head.epoch[0], 0);
}

static void stop(struct bench *b)
{
	spool_close(b->spool);
	spool_head_clear(&b->head);
	remove_tree(b->dir);
}

/* The name in the vault of a part, made from its content as log_encode does. */
static char *object_of(uint32_t first, uint32_t last, unsigned part, bool final, const void *data, size_t len, uint8_t hash[32])
{
	char hex[65];
	crypto_hash(hash, data, len);
	return im_format("logs/im-01/chat/" EPOCH "/%05x/%08x-%08x-00000000abcd-%04x%c-%.16s", first >> 12, first, last, part, final ? 'e' : 'm',
	    im_hex(hex, hash, 32));
}

static void add_parts(struct bench *b, uint32_t point, unsigned parts, uint8_t hash[32])
{
	struct im_error err = { 0 };
	for (unsigned i = 0; i < parts; i++) {
		char text[64];
		snprintf(text, sizeof text, "segment %u part %u", (unsigned)point, i);
		char *object = object_of(point, point, i, i + 1 == parts, text, strlen(text), hash);
		assert_ok(spool_part(b->spool, object, text, strlen(text), &err), &err);
		free(object);
	}
}

static struct spool_head head_at(uint32_t point, const uint8_t hash[32])
{
	struct spool_head h = { .epoch = EPOCH, .first = point, .point = point, .complete_ms = 1000 + point, .latest_ms = 2000 + point,
		.position = json_pack("{s:i}", "at", (int)point) };
	memcpy(h.hash, hash, 32);
	return h;
}

static void add_segment(struct bench *b, uint32_t point, unsigned parts, bool sync)
{
	struct im_error err = { 0 };
	uint8_t hash[32];
	add_parts(b, point, parts, hash);
	struct spool_head h = head_at(point, hash);
	assert_ok(spool_commit(b->spool, &h, sync, &err), &err);
	spool_head_clear(&h);
}

/* Takes everything in order; returns the contents, one per line. */
static char *ship_all(struct bench *b)
{
	auto_buf struct im_buf all = { 0 };
	struct im_error err = { 0 };
	struct spool_item item;
	while (spool_front(b->spool, &item)) {
		assert_ok(spool_read(b->spool, &item, &all, &err), &err);
		im_buf_put(&all, "\n", 1);
		spool_shipped(b->spool);
	}
	assert_int_equal(spool_bytes(b->spool), 0);
	return strndup((const char *)all.data, all.len);
}

static void assert_ships(struct bench *b, const char *expected)
{
	char *got = ship_all(b);
	assert_string_equal(got, expected);
	free(got);
}

static unsigned files_in_queue(const struct bench *b)
{
	char path[128];
	unsigned n = 0;
	snprintf(path, sizeof path, "%s/spool", b->dir);
	DIR *d = opendir(path);
	for (const struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

/* Runs in a child that dies without any clean-up. */
static void in_dying_child(struct bench *b, void (*fn)(struct bench *b))
{
	pid_t pid = fork();
	if (pid == 0) {
		fn(b);
		_exit(0);
	}
	int status;
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void commit__ships_in_order_across_reopening(void **state)
{
	(void)state;
	struct bench b;
	start(&b);
	add_segment(&b, 1, 1, false);
	add_segment(&b, 2, 3, true);
	open_again(&b);
	assert_int_equal(b.head.point, 2);
	assert_string_equal(b.head.epoch, EPOCH);
	assert_int_equal(json_integer_value(json_object_get(b.head.position, "at")), 2);
	add_segment(&b, 3, 1, false);
	assert_int_equal(spool_count(b.spool), 5);
	assert_ships(&b, "segment 1 part 0\nsegment 2 part 0\nsegment 2 part 1\nsegment 2 part 2\nsegment 3 part 0\n");
	assert_int_equal(files_in_queue(&b), 0);
	stop(&b);
}

static void write_parts(struct bench *b)
{
	uint8_t hash[32];
	add_parts(b, 2, 2, hash);
}

static void open__drops_what_no_head_knows(void **state)
{
	(void)state;
	struct bench b;
	start(&b);
	add_segment(&b, 1, 1, false);
	in_dying_child(&b, write_parts);
	assert_int_equal(files_in_queue(&b), 3);
	open_again(&b);
	assert_int_equal(files_in_queue(&b), 1);
	assert_int_equal(b.head.point, 1);
	assert_ships(&b, "segment 1 part 0\n");
	stop(&b);
}

static void rename_to_temporary(struct bench *b)
{
	char command[256];
	snprintf(command, sizeof command, "cd %s/spool && for f in *-0000%s*; do mv $f tmp-$f; done", b->dir, "0002");
	assert_int_equal(system(command), 0);
}

static void open__finishes_what_the_head_knows(void **state)
{
	(void)state;
	struct bench b;
	start(&b);
	add_segment(&b, 1, 1, false);
	add_segment(&b, 2, 2, false);
	rename_to_temporary(&b); /* as if it had died after the head */
	open_again(&b);
	assert_int_equal(b.head.point, 2);
	assert_ships(&b, "segment 1 part 0\nsegment 2 part 0\nsegment 2 part 1\n");
	stop(&b);
}

static void open__half_named_parts_are_completed(void **state)
{
	(void)state;
	struct bench b;
	char command[256];
	start(&b);
	add_segment(&b, 1, 3, false);
	snprintf(command, sizeof command, "cd %s/spool && for f in *-0001m-*; do mv $f tmp-$f; done", b.dir);
	assert_int_equal(system(command), 0);
	open_again(&b);
	assert_ships(&b, "segment 1 part 0\nsegment 1 part 1\nsegment 1 part 2\n");
	stop(&b);
}

static void commit__a_failure_leaves_the_old_head_and_no_parts(void **state)
{
	(void)state;
	struct bench b;
	char path[128];
	struct im_error err = { 0 };
	uint8_t hash[32];
	start(&b);
	add_segment(&b, 1, 1, false);
	snprintf(path, sizeof path, "%s/head.tmp", b.dir);
	assert_int_equal(mkdir(path, 0700), 0); /* the new head cannot be written */
	add_parts(&b, 2, 2, hash);
	struct spool_head h = head_at(2, hash);
	assert_true(spool_commit(b.spool, &h, false, &err) < 0);
	assert_int_equal(files_in_queue(&b), 1);
	rmdir(path);
	spool_head_clear(&h);
	add_segment(&b, 2, 1, false);
	open_again(&b);
	assert_int_equal(b.head.point, 2);
	assert_ships(&b, "segment 1 part 0\nsegment 2 part 0\n");
	stop(&b);
}

static void open__a_shipped_object_that_stayed_is_shipped_again(void **state)
{
	(void)state;
	struct bench b;
	struct spool_item item;
	start(&b);
	add_segment(&b, 1, 1, false);
	open_again(&b);
	assert_true(spool_front(b.spool, &item));
	assert_int_equal(item.point, 1); /* of the newest segment all is known again */
	assert_int_equal(item.complete_ms, 1001);
	assert_string_equal(item.position, "{\"at\":1}");
	assert_ships(&b, "segment 1 part 0\n");
	open_again(&b);
	assert_int_equal(spool_count(b.spool), 0);
	add_segment(&b, 2, 1, false); /* sequence numbers go on */
	assert_ships(&b, "segment 2 part 0\n");
	stop(&b);
}

static void read__damage_is_found(void **state)
{
	(void)state;
	static const char *const harms[] = { "truncate -s 0 *", "truncate -s 5 *", "printf x | dd of=$(ls) bs=1 seek=3 conv=notrunc 2>/dev/null", "rm *" };
	for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
		struct bench b;
		struct spool_item item;
		auto_buf struct im_buf data = { 0 };
		char command[256];
		start(&b);
		add_segment(&b, 1, 1, false);
		snprintf(command, sizeof command, "cd %s/spool && %s", b.dir, harms[i]);
		assert_int_equal(system(command), 0);
		assert_true(spool_front(b.spool, &item));
		assert_int_equal(spool_read(b.spool, &item, &data, NULL), IM_ECORRUPT);
		open_again(&b); /* … and with the size it has now */
		if (spool_front(b.spool, &item))
			assert_int_equal(spool_read(b.spool, &item, &data, NULL), IM_ECORRUPT);
		stop(&b);
	}
}

static void open__a_head_that_is_none_is_lost_not_believed(void **state)
{
	(void)state;
	static const char *const heads[] = { "", "{", "[]", "null", "{\"version\":1}",
		"{\"version\":2,\"epoch\":\"" EPOCH "\",\"first\":1,\"point\":1}",
		"{\"version\":1,\"epoch\":\"" EPOCH "\",\"first\":2,\"point\":1,\"complete_ms\":1,\"latest_ms\":1,\"sequence\":1,"
		"\"hash\":\"0000000000000000000000000000000000000000000000000000000000000000\",\"position\":{},\"parts\":[]}",
		"{\"version\":1,\"epoch\":\"../../../../../etc\",\"first\":1,\"point\":1,\"complete_ms\":1,\"latest_ms\":1,\"sequence\":1,"
		"\"hash\":\"0000000000000000000000000000000000000000000000000000000000000000\",\"position\":{},\"parts\":[]}" };
	for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
		struct bench b;
		char path[128];
		struct im_error err = { 0 };
		start(&b);
		add_segment(&b, 1, 1, false);
		snprintf(path, sizeof path, "%s/head", b.dir);
		assert_ok(im_file_write(path, heads[i], strlen(heads[i]), 0600, IM_FILE_REPLACE, &err), &err);
		open_again(&b);
		assert_true(b.lost);
		assert_int_equal(b.head.epoch[0], 0);
		assert_ships(&b, "segment 1 part 0\n"); /* what was spooled is still worth shipping */
		stop(&b);
	}
}

static void open__names_that_are_not_ours_are_left_alone(void **state)
{
	(void)state;
	struct bench b;
	char command[512];
	start(&b);
	add_segment(&b, 1, 1, false);
	snprintf(command, sizeof command, "cd %s/spool && touch readme 0000000000000009-" EPOCH "-nonsense 0000000000000009 && mkdir 0000000000000008-" EPOCH
	    "-00000001-00000001-00000000abcd-0000e-0123456789abcdef && ln -s /etc/passwd 0000000000000007-" EPOCH
	    "-00000001-00000001-00000000abcd-0000e-0123456789abcdef", b.dir);
	assert_int_equal(system(command), 0);
	open_again(&b);
	assert_ships(&b, "segment 1 part 0\n");
	assert_int_equal(files_in_queue(&b), 5);
	stop(&b);
}

static void head__survives_encoding(void **state)
{
	(void)state;
	uint8_t hash[32];
	fill_bytes(hash, 32, 7);
	struct spool_head h = head_at(9, hash), back = { 0 };
	uint64_t sequence;
	json_t *parts = json_array(), *back_parts = NULL;
	h.first = 4;
	h.snapshot_due = h.has_anchor = h.has_before = h.joined = true;
	h.anchor_point = 3;
	h.anchor_ms = 77;
	fill_bytes(h.anchor_sum, 16, 1);
	fill_bytes(h.anchor_checksum, 16, 2);
	fill_bytes(h.before_checksum, 16, 3);
	json_t *j = spool_head_encode(&h, 42, parts);
	assert_true(spool_head_decode(j, &back, &sequence, &back_parts));
	assert_int_equal(sequence, 42);
	assert_int_equal(back.first, 4);
	assert_int_equal(back.point, 9);
	assert_int_equal(back.anchor_point, 3);
	assert_int_equal(back.anchor_ms, 77);
	assert_true(back.snapshot_due && back.has_anchor && back.has_before && back.joined);
	assert_memory_equal(back.hash, h.hash, 32);
	assert_memory_equal(back.anchor_sum, h.anchor_sum, 16);
	assert_memory_equal(back.anchor_checksum, h.anchor_checksum, 16);
	assert_memory_equal(back.before_checksum, h.before_checksum, 16);
	json_decref(j);
	json_decref(parts);
	json_decref(back_parts);
	spool_head_clear(&h);
	spool_head_clear(&back);
}

static void add__loose_objects_come_after_what_is_there(void **state)
{
	(void)state;
	struct bench b;
	struct im_error err = { 0 };
	uint8_t hash[32];
	start(&b);
	add_segment(&b, 1, 1, false);
	char *object = object_of(1, 1, 0, true, "coarse", 6, hash);
	assert_ok(spool_add(b.spool, object, "coarse", 6, &err), &err);
	free(object);
	add_segment(&b, 2, 1, false);
	assert_int_equal(spool_bytes(b.spool), 16 + 6 + 16);
	open_again(&b);
	assert_ships(&b, "segment 1 part 0\ncoarse\nsegment 2 part 0\n");
	stop(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commit__ships_in_order_across_reopening),
		cmocka_unit_test(open__drops_what_no_head_knows),
		cmocka_unit_test(open__finishes_what_the_head_knows),
		cmocka_unit_test(open__half_named_parts_are_completed),
		cmocka_unit_test(commit__a_failure_leaves_the_old_head_and_no_parts),
		cmocka_unit_test(open__a_shipped_object_that_stayed_is_shipped_again),
		cmocka_unit_test(read__damage_is_found),
		cmocka_unit_test(open__a_head_that_is_none_is_lost_not_believed),
		cmocka_unit_test(open__names_that_are_not_ours_are_left_alone),
		cmocka_unit_test(head__survives_encoding),
		cmocka_unit_test(add__loose_objects_come_after_what_is_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
