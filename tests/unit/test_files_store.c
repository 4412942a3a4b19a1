/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files store through a real vault: what goes in comes out, in every detail Linux keeps;
 * unchanged files are not read again; what changes or vanishes is reported.
 */
#include "files_rig.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>

static void snapshot_ok(struct files_rig *r)
{
	struct im_error err = { 0 };
	assert_ok(files_rig_snapshot(r, false, &err), &err);
}

static void assert_restores_equal(struct files_rig *r)
{
	struct im_error err = { 0 };
	char root[512];
	auto_free char *before = files_rig_describe(r->source);
	assert_ok(files_rig_restore(r, NULL, root, &err), &err);
	auto_free char *after = files_rig_describe(root);
	if (strcmp(before, after))
		fprintf(stderr, "before:\n%s\nafter:\n%s\n", before, after); /* cmocka cuts long strings */
	assert_true(!strcmp(before, after));
	assert_string_equal(r->damage, "");
}

static void put_big(struct files_rig *r, const char *path, size_t len, uint64_t seed)
{
	auto_free uint8_t *data = malloc(len);
	fill_bytes(data, len, seed);
	files_rig_write(r, path, data, len);
}

static void set_time(struct files_rig *r, const char *path, int64_t s, long ns)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = s, .tv_nsec = ns } };
	assert_int_equal(utimensat(AT_FDCWD, files_rig_path(r, path), t, AT_SYMLINK_NOFOLLOW), 0);
}

static void snapshot__restores_contents_of_all_sizes(void **state)
{
	struct files_rig *r = *state;
	static const size_t sizes[] = { 0, 1, 511, 4096, 65535, 65536, 262144, 1048575, 1048576, 1048577, 3500000 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		char name[64];
		snprintf(name, sizeof name, "dir%zu/file%zu", i % 3, sizes[i]);
		put_big(r, name, sizes[i], i);
	}
	mkdir(files_rig_path(r, "empty"), 0700);
	snapshot_ok(r);
	assert_int_equal(json_integer_value(json_object_get(r->result.manifest, "files")), 11);
	assert_int_equal(json_integer_value(json_object_get(r->result.manifest, "dirs")), 5);
	assert_false(r->result.partial);
	assert_restores_equal(r);
}

static void snapshot__keeps_odd_names(void **state)
{
	struct files_rig *r = *state;
	char longest[256];
	memset(longest, 'x', 255);
	longest[255] = 0;
	const char *names[] = { "new\nline", "tab\there", "\xff\xfe not utf-8", "\xe4\xbd\xa0\xe5\xa5\xbd", " ", "-rf",
		"a'b\"c\\d", "..a", "...", "\x01", "k=v", longest, "caf\xe9", "PaxHeader" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		files_rig_write(r, names[i], names[i], strlen(names[i]));
	mkdir(files_rig_path(r, "\xff dir"), 0755);
	files_rig_write(r, "\xff dir/\xfe", "x", 1);
	assert_int_equal(symlink("\xfftarget\n", files_rig_path(r, "\xfelink")), 0);
	assert_int_equal(symlink("\xe4\xbd\xa0", files_rig_path(r, "utf-8 link")), 0);
	auto_free char *from = strdup(files_rig_path(r, "\xff dir/\xfe"));
	assert_int_equal(link(from, files_rig_path(r, "\xffhard")), 0);
	snapshot_ok(r);
	assert_restores_equal(r);
}

static void snapshot__keeps_odd_names_in_utf8_locale(void **state)
{
	setlocale(LC_ALL, "C.UTF-8");
	snapshot__keeps_odd_names(state);
	setlocale(LC_ALL, "C");
}

static void snapshot__keeps_deep_and_long_paths(void **state)
{
	struct files_rig *r = *state;
	char path[3600] = "";
	for (int i = 0; i < 300; i++)
		strcat(path, "d/");
	strcat(path, "file");
	files_rig_write(r, path, "deep", 4);
	path[0] = 0;
	for (int i = 0; i < 14; i++) {
		char part[251];
		memset(part, 'a' + i, 250);
		part[249] = '/';
		part[250] = 0;
		strcat(path, part);
	}
	strcat(path, "file");
	files_rig_write(r, path, "long", 4);
	snapshot_ok(r);
	assert_restores_equal(r);
}

static void snapshot__keeps_metadata(void **state)
{
	struct files_rig *r = *state;
	files_rig_write(r, "a/setuid", "x", 1);
	chmod(files_rig_path(r, "a/setuid"), 06755);
	files_rig_write(r, "a/none", "y", 1);
	chmod(files_rig_path(r, "a/none"), geteuid() ? 0400 : 0);
	files_rig_write(r, "before1970", "z", 1);
	set_time(r, "before1970", -86401, 123456789);
	files_rig_write(r, "after2038", "z", 1);
	set_time(r, "after2038", INT64_C(5000000000), 999999999);
	files_rig_write(r, "after2262", "z", 1);
	set_time(r, "after2262", INT64_C(12000000000), 1);
	assert_int_equal(mkfifo(files_rig_path(r, "fifo"), 0640), 0);
	assert_int_equal(symlink("/nowhere/at all", files_rig_path(r, "link")), 0);
	set_time(r, "link", 1000000000, 5);
	assert_int_equal(setxattr(files_rig_path(r, "a"), "user.note", "on a folder", 11, 0), 0);
	assert_int_equal(setxattr(files_rig_path(r, "before1970"), "user.bytes \xff", "\0\1\2\xff", 4, 0), 0);
	assert_int_equal(setxattr(files_rig_path(r, "before1970"), "user.empty", "", 0, 0), 0);
	assert_int_equal(setxattr(files_rig_path(r, "before1970"), "user.a%20b", "1", 1, 0), 0);
	assert_int_equal(setxattr(files_rig_path(r, "before1970"), "user.a b", "1", 1, 0), 0);
	assert_int_equal(setxattr(files_rig_path(r, "before1970"), "user.k=v%", "line\n1=2", 8, 0), 0);
	chmod(files_rig_path(r, "a"), 01711);
	set_time(r, "a", 1111111111, 111);
	set_time(r, ".", 1222222222, 222);
	if (geteuid() == 0) {
		lchown(files_rig_path(r, "a/setuid"), 4321, 1234);
		chmod(files_rig_path(r, "a/setuid"), 06711);
		lchown(files_rig_path(r, "link"), 99, 98);
		lchown(files_rig_path(r, "fifo"), 97, 96);
		assert_int_equal(mknod(files_rig_path(r, "null"), S_IFCHR | 0666, makedev(1, 3)), 0);
		uint8_t capability[20] = { 0, 0, 0, 2, 0, 4 };
		assert_int_equal(setxattr(files_rig_path(r, "a/none"), "security.capability", capability, 20, 0), 0);
		lsetxattr(files_rig_path(r, "link"), "trusted.t", "v", 1, 0);
		set_time(r, "a", 1111111111, 111);
		set_time(r, ".", 1222222222, 222);
	}
	snapshot_ok(r);
	assert_restores_equal(r);
}

static void set_acl(const char *path, const char *attribute, bool named)
{
	/* user::rwx user:1234:r-x group::r-- group:55:rw- mask::rwx other::--- */
	uint8_t value[4 + 6 * 8], *p = value;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} rows[] = { { 1, 7, ~0u }, { 2, 5, 1234 }, { 4, 4, ~0u }, { 8, 6, 55 }, { 16, 7, ~0u }, { 32, 0, ~0u } };
	im_put_le32(p, 2);
	p += 4;
	for (size_t i = 0; i < 6; i++) {
		if (!named && (rows[i].tag == 2 || rows[i].tag == 8 || rows[i].tag == 16))
			continue;
		im_put_le32(p, rows[i].tag | (uint32_t)rows[i].perm << 16);
		im_put_le32(p + 4, rows[i].id);
		p += 8;
	}
	if (setxattr(path, attribute, value, (size_t)(p - value), 0) && errno == EOPNOTSUPP)
		skip();
}

static void snapshot__keeps_acls(void **state)
{
	struct files_rig *r = *state;
	files_rig_write(r, "d/f", "x", 1);
	set_acl(files_rig_path(r, "d/f"), "system.posix_acl_access", true);
	set_acl(files_rig_path(r, "d"), "system.posix_acl_access", true);
	set_acl(files_rig_path(r, "d"), "system.posix_acl_default", true);
	mkdir(files_rig_path(r, "plain default"), 0755);
	set_acl(files_rig_path(r, "plain default"), "system.posix_acl_default", false);
	snapshot_ok(r);
	assert_restores_equal(r);
}

static void snapshot__keeps_hard_links(void **state)
{
	struct files_rig *r = *state;
	put_big(r, "one/a", 70000, 1);
	mkdir(files_rig_path(r, "two"), 0755);
	auto_free char *from = strdup(files_rig_path(r, "one/a"));
	assert_int_equal(link(from, files_rig_path(r, "two/b")), 0);
	assert_int_equal(link(from, files_rig_path(r, "zz")), 0);
	assert_int_equal(mkfifo(files_rig_path(r, "fifo"), 0600), 0);
	auto_free char *fifo = strdup(files_rig_path(r, "fifo"));
	assert_int_equal(link(fifo, files_rig_path(r, "two/fifo")), 0);
	assert_int_equal(symlink("one", files_rig_path(r, "sym")), 0);
	auto_free char *sym = strdup(files_rig_path(r, "sym"));
	assert_int_equal(linkat(AT_FDCWD, sym, AT_FDCWD, files_rig_path(r, "two/sym"), 0), 0);
	snapshot_ok(r);
	assert_int_equal(json_integer_value(json_object_get(r->result.manifest, "files")), 1);
	assert_restores_equal(r);
}

static void snapshot__keeps_holes(void **state)
{
	struct files_rig *r = *state;
	auto_close int fd = open(files_rig_path(r, "sparse"), O_RDWR | O_CREAT, 0644);
	assert_int_equal(pwrite(fd, "island", 6, 50 << 20), 6);
	assert_int_equal(pwrite(fd, "start", 5, 0), 5);
	assert_int_equal(ftruncate(fd, 3LL << 30), 0);
	auto_close int all = open(files_rig_path(r, "all hole"), O_RDWR | O_CREAT, 0644);
	assert_int_equal(ftruncate(all, 1 << 20), 0);
	snapshot_ok(r);
	assert_true(r->result.bytes_read < 1 << 20);
	struct im_error err = { 0 };
	struct stat st;
	char root[512], path[1024], text[6];
	assert_ok(files_rig_restore(r, NULL, root, &err), &err);
	snprintf(path, sizeof path, "%s/sparse", root);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 3LL << 30);
	assert_true(st.st_blocks < 4096);
	auto_close int restored = open(path, O_RDONLY);
	assert_int_equal(pread(restored, text, 6, 50 << 20), 6);
	assert_memory_equal(text, "island", 6);
}

static void snapshot__reads_unchanged_files_only_once(void **state)
{
	struct files_rig *r = *state;
	put_big(r, "a/big", 2000000, 1);
	put_big(r, "a/small", 2000, 2);
	put_big(r, "b/small", 3000, 3);
	files_rig_settle();
	snapshot_ok(r);
	assert_int_equal(r->result.bytes_read, 2005000);
	snapshot_ok(r);
	assert_int_equal(r->result.bytes_read, 0);
	assert_int_equal(r->result.bytes_changed, 0);
	assert_int_equal(r->result.bytes, 2005000);
	assert_restores_equal(r);
	put_big(r, "a/new", 500, 4);
	chmod(files_rig_path(r, "b/small"), 0600);
	snapshot_ok(r);
	assert_int_equal(r->result.bytes_read, 3500); /* its change time says it may have been written to */
	assert_restores_equal(r);
	struct im_error err = { 0 };
	assert_ok(files_rig_snapshot(r, true, &err), &err);
	assert_int_equal(r->result.bytes_read, 2005500);
	assert_restores_equal(r);
}

static void snapshot__does_not_trust_the_clocks_grain(void **state)
{
	struct files_rig *r = *state;
	files_rig_write(r, "f", "old", 3);
	struct stat st;
	stat(files_rig_path(r, "f"), &st);
	snapshot_ok(r);
	files_rig_write(r, "f", "new", 3);
	set_time(r, "f", st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	snapshot_ok(r);
	assert_int_equal(r->result.bytes_read, 3);
	assert_restores_equal(r);
}

static void snapshot__sees_same_size_and_time_swapped_in(void **state)
{
	struct files_rig *r = *state;
	files_rig_write(r, "f", "old", 3);
	files_rig_write(r, "g", "new", 3);
	set_time(r, "f", 1000000000, 0);
	set_time(r, "g", 1000000000, 0);
	files_rig_settle();
	snapshot_ok(r);
	auto_free char *from = strdup(files_rig_path(r, "g"));
	assert_int_equal(rename(from, files_rig_path(r, "f")), 0);
	snapshot_ok(r);
	assert_restores_equal(r);
}

static void snapshot__follows_removal_and_change_of_kind(void **state)
{
	struct files_rig *r = *state;
	put_big(r, "a/x", 5000, 1);
	put_big(r, "b", 5000, 2);
	files_rig_settle();
	snapshot_ok(r);
	unlink(files_rig_path(r, "a/x"));
	rmdir(files_rig_path(r, "a"));
	files_rig_write(r, "a", "now a file", 10);
	unlink(files_rig_path(r, "b"));
	mkdir(files_rig_path(r, "b"), 0755);
	snapshot_ok(r);
	assert_restores_equal(r);
}

static void snapshot__of_many_files_in_many_segments(void **state)
{
	struct files_rig *r = *state;
	for (int i = 0; i < 3000; i++) {
		char name[64];
		int n = snprintf(name, sizeof name, "d%02d/f%04d", i % 17, i);
		files_rig_write(r, name, name, (size_t)n);
	}
	files_rig_settle();
	snapshot_ok(r);
	auto_buf struct im_buf refs = { 0 };
	assert_true(im_unbase64(&refs, json_string_value(json_object_get(r->result.manifest, "segments"))));
	assert_true(refs.len / REF_BYTES > 2);
	assert_restores_equal(r);
	files_rig_write(r, "d05/f0001a", "inserted", 8);
	unlink(files_rig_path(r, "d07/f0007"));
	uint64_t stored = r->result.bytes;
	snapshot_ok(r);
	assert_true(r->result.bytes_read < 20000); /* the boundaries stay where they were */
	assert_true(r->result.bytes != stored);
	assert_restores_equal(r);
}

static void snapshot__leaves_out_what_is_excluded(void **state)
{
	struct files_rig *r = *state;
	files_rig_option(r, "exclude", "*.tmp");
	files_rig_option(r, "exclude", "cache/*");
	files_rig_option(r, "exclude", "/top");
	files_rig_option(r, "exclude", "logs/");
	files_rig_write(r, "keep", "1", 1);
	files_rig_write(r, "a/b.tmp", "1", 1);
	files_rig_write(r, "cache/x/y", "1", 1);
	files_rig_write(r, "sub/cache/x", "1", 1);
	files_rig_write(r, "top", "1", 1);
	files_rig_write(r, "sub/top", "1", 1);
	files_rig_write(r, "logs/l", "1", 1);
	files_rig_write(r, "sub/logs", "1", 1);
	snapshot_ok(r);
	struct im_error err = { 0 };
	char root[512];
	assert_ok(files_rig_restore(r, NULL, root, &err), &err);
	auto_free char *text = files_rig_describe(root);
	assert_non_null(strstr(text, "keep:"));
	assert_null(strstr(text, "b.tmp"));
	assert_null(strstr(text, "cache/x/y"));
	assert_non_null(strstr(text, "sub/cache/x:"));
	assert_null(strstr(text, "\ntop:"));
	assert_non_null(strstr(text, "sub/top:"));
	assert_null(strstr(text, "logs/l:"));
	assert_non_null(strstr(text, "sub/logs:"));
}

static void snapshot__leaves_out_other_stores_and_the_vault(void **state)
{
	struct files_rig *r = *state;
	auto_free char *vault = im_format("file://%s/vault", r->source);
	auto_free char *state_dir = im_format("%s/state", r->source);
	auto_free char *nested = im_format("%s/nested", r->source);
	r->config.vault_url = vault;
	r->config.state_dir = state_dir;
	r->stores[1] = (struct im_config_store){ .name = "nested", .type = "files", .path = nested };
	r->config.store_count = 2;
	files_rig_write(r, "vault/packs", "1", 1);
	files_rig_write(r, "state/db", "1", 1);
	files_rig_write(r, "nested/x", "1", 1);
	files_rig_write(r, "nested2/x", "1", 1);
	snapshot_ok(r);
	assert_int_equal(json_integer_value(json_object_get(r->result.manifest, "files")), 1);
	assert_int_equal(json_array_size(json_object_get(r->result.manifest, "elsewhere")), 3);
	char *text = NULL;
	struct im_error err = { 0 };
	assert_ok(files_check(r->result.manifest, r->source, "quick", &text, &err), &err);
	free(text);
	r->config.vault_url = r->f.vault_dir;
	r->config.state_dir = r->f.state_dir;
}

static void snapshot__warns_of_databases_every_time(void **state)
{
	struct files_rig *r = *state;
	char bytes[4096] = "SQLite format 3";
	files_rig_write(r, "chat.db", bytes, sizeof bytes);
	files_rig_settle();
	for (int i = 0; i < 3; i++) {
		snapshot_ok(r);
		assert_non_null(strstr(r->warnings, "chat.db is an SQLite database"));
		assert_false(r->result.partial);
		if (i == 1)
			files_rig_write(r, "other", "1", 1);
	}
	assert_restores_equal(r);
}

static void snapshot__skips_sockets(void **state)
{
	struct files_rig *r = *state;
	auto_close int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	assert_true(snprintf(a.sun_path, sizeof a.sun_path, "%.90s/s", r->source) < (int)sizeof a.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	snapshot_ok(r);
	assert_int_equal(json_integer_value(json_object_get(r->result.manifest, "others")), 0);
}

static void snapshot__fails_when_the_root_is_missing(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	rmdir(r->source);
	assert_int_equal(files_rig_snapshot(r, false, &err), IM_ENOTFOUND);
	assert_non_null(strstr(err.text, r->source));
	mkdir(r->source, 0755);
}

static void snapshot__of_a_single_file(void **state)
{
	struct files_rig *r = *state;
	rmdir(r->source);
	auto_close int fd = open(r->source, O_WRONLY | O_CREAT, 0640);
	assert_int_equal(write(fd, "configuration", 13), 13);
	snapshot_ok(r);
	assert_restores_equal(r);
	unlink(r->source);
}

static void snapshot__with_lost_state_stores_nothing_twice(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	put_big(r, "a", 3000000, 7);
	snapshot_ok(r);
	assert_ok(state_forget(r->f.state, &err), &err);
	snapshot_ok(r);
	assert_int_equal(r->result.bytes_read, 3000000);
	assert_int_equal(r->result.bytes_changed, 0);
	assert_restores_equal(r);
}

struct scribbler {
	char path[512];
	bool append;
	_Atomic bool stop;
};

static void *scribble(void *context)
{
	struct scribbler *s = context;
	auto_close int fd = open(s->path, O_WRONLY | (s->append ? O_APPEND : 0));
	for (char c = 0; !s->stop; c++) {
		if (s->append ? write(fd, &c, 1) != 1 : pwrite(fd, &c, 1, 100) != 1)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
	return NULL;
}

static void snapshot_while_scribbling(struct files_rig *r, const char *path, bool append)
{
	pthread_t thread;
	struct scribbler s = { .append = append };
	snprintf(s.path, sizeof s.path, "%s", files_rig_path(r, path));
	assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
	snapshot_ok(r);
	s.stop = true;
	pthread_join(thread, NULL);
}

static void snapshot__reports_a_file_that_never_stands_still(void **state)
{
	struct files_rig *r = *state;
	put_big(r, "busy", 60 << 20, 1);
	snapshot_while_scribbling(r, "busy", false);
	assert_true(r->result.partial);
	assert_non_null(strstr(r->warnings, "busy changed each of the 3 times"));
	snapshot_ok(r);
	assert_false(r->result.partial);
	assert_restores_equal(r);
}

static void snapshot__keeps_the_prefix_of_a_growing_file(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	char root[512], path[1024];
	struct stat st;
	put_big(r, "log", 60 << 20, 1);
	snapshot_while_scribbling(r, "log", true);
	assert_false(r->result.partial);
	assert_string_equal(r->warnings, "");
	assert_ok(files_rig_restore(r, NULL, root, &err), &err);
	snprintf(path, sizeof path, "%s/log", root);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size >= 60 << 20);
	snapshot_ok(r);
	assert_restores_equal(r);
}

/* While the segment is read: after "a.db" was, what follows changes. */
static void sabotage(struct files_rig *r, const char *text)
{
	if (!strstr(text, "a.db is an SQLite database"))
		return;
	r->on_warning = NULL;
	unlink(files_rig_path(r, "b"));
	unlink(files_rig_path(r, "c"));
	symlink("/etc/passwd", files_rig_path(r, "c"));
	auto_free char *from = strdup(files_rig_path(r, "d"));
	assert_int_equal(rename(from, files_rig_path(r, "d.away")), 0);
	symlink("/etc", from);
	unlink(files_rig_path(r, "e"));
}

static void snapshot__reports_what_vanishes_and_follows_no_link_put_in_its_place(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	char root[512], bytes[4096] = "SQLite format 3";
	files_rig_write(r, "a.db", bytes, sizeof bytes);
	files_rig_write(r, "b", "b", 1);
	files_rig_write(r, "c", "c", 1);
	files_rig_write(r, "d/passwd", "mine", 4);
	files_rig_write(r, "e", "e", 1);
	files_rig_write(r, "f", "f", 1);
	r->on_warning = sabotage;
	snapshot_ok(r);
	assert_non_null(strstr(r->warnings, "4 files vanished"));
	assert_false(r->result.partial);
	assert_ok(files_rig_restore(r, NULL, root, &err), &err);
	auto_free char *text = files_rig_describe(root);
	assert_null(strstr(text, "\nb:"));
	assert_null(strstr(text, "\nc:"));
	assert_null(strstr(text, "passwd"));
	assert_non_null(strstr(text, "\nf:"));
	snapshot_ok(r);
	assert_restores_equal(r);
}

static void vanish_first_link(struct files_rig *r, const char *text)
{
	if (strstr(text, "a.db is an SQLite database"))
		unlink(files_rig_path(r, "b"));
}

static void snapshot__is_partial_when_hard_links_lose_their_first_name(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	char bytes[4096] = "SQLite format 3";
	files_rig_write(r, "a.db", bytes, sizeof bytes);
	files_rig_write(r, "b", "b", 1);
	auto_free char *from = strdup(files_rig_path(r, "b"));
	assert_int_equal(link(from, files_rig_path(r, "z")), 0);
	r->on_warning = vanish_first_link;
	snapshot_ok(r);
	assert_true(r->result.partial);
	assert_ok(files_rig_restore(r, NULL, NULL, &err), &err);
	assert_non_null(strstr(r->damage, "z: cannot make a hard link"));
	snapshot_ok(r);
	assert_false(r->result.partial);
	assert_restores_equal(r);
}

static void snapshot__reports_paths_too_long_to_restore(void **state)
{
	struct files_rig *r = *state;
	char part[201];
	memset(part, 'p', 200);
	part[200] = 0;
	auto_close int here = open(".", O_RDONLY | O_DIRECTORY);
	assert_int_equal(chdir(r->source), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(mkdir(part, 0755), 0);
		assert_int_equal(chdir(part), 0);
	}
	assert_int_equal(fchdir(here), 0);
	snapshot_ok(r);
	assert_true(r->result.partial);
	assert_non_null(strstr(r->warnings, "too long"));
	auto_free char *command = im_format("rm -rf '%s'/p*", r->source);
	assert_int_equal(system(command), 0);
}

/* As an ordinary user: what it may not read is reported and left out, all else is there. 0: as it should be. */
static int unreadable_as_user(void)
{
	void *state;
	struct im_error err = { 0 };
	if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
		return 1;
	files_rig_setup(&state);
	struct files_rig *r = state;
	files_rig_write(r, "secret", "x", 1);
	files_rig_write(r, "folder/inside", "y", 1);
	files_rig_write(r, "open", "z", 1);
	chmod(files_rig_path(r, "secret"), 0);
	chmod(files_rig_path(r, "folder"), 0);
	int rc = files_rig_snapshot(r, false, &err);
	bool good = !rc && r->result.partial && strstr(r->warnings, "secret") && strstr(r->warnings, "folder") &&
	    json_integer_value(json_object_get(r->result.manifest, "files")) == 1 &&
	    json_integer_value(json_object_get(r->result.manifest, "dirs")) == 2;
	chmod(files_rig_path(r, "folder"), 0700);
	files_rig_teardown(&state);
	return good ? 0 : 2;
}

static void snapshot__reports_what_it_may_not_read(void **state)
{
	int status;
	(void)state;
	pid_t pid = fork();
	if (!pid)
		_exit(unreadable_as_user());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void hooks__run_in_order(void **state)
{
	struct files_rig *r = *state;
	files_rig_option(r, "pre", "echo pre-$IMVAULT_STORE > \"$IMVAULT_PATH/hook\"");
	files_rig_option(r, "post", "echo post >> \"$IMVAULT_PATH/hook\"");
	snapshot_ok(r);
	auto_buf struct im_buf text = { 0 };
	im_file_read(files_rig_path(r, "hook"), 100, &text, NULL);
	im_buf_put_u8(&text, 0);
	assert_string_equal((char *)text.data, "pre-uploads\npost\n");
	assert_int_equal(r->result.bytes, 12);
}

static void hooks__pre_failure_fails_the_store_and_post_still_runs(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	files_rig_option(r, "pre", "echo first >&2; echo 'no such unit' >&2; exit 3");
	files_rig_option(r, "post", "touch \"$IMVAULT_PATH/post\"");
	assert_int_equal(files_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "status 3: no such unit"));
	assert_int_equal(access(files_rig_path(r, "post"), F_OK), 0);
}

static void hooks__time_out(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	files_rig_option(r, "pre", "sleep 60");
	files_rig_option(r, "hook_timeout", "200ms");
	assert_int_equal(files_rig_snapshot(r, false, &err), IM_EFAIL);
	assert_non_null(strstr(err.text, "hook_timeout"));
}

static void hooks__post_failure_is_partial(void **state)
{
	struct files_rig *r = *state;
	files_rig_option(r, "post", "exit 1");
	snapshot_ok(r);
	assert_true(r->result.partial);
	assert_non_null(strstr(r->warnings, "post hook"));
}

static void restore__of_one_path_brings_hard_links_content(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	char root[512];
	put_big(r, "a/first", 100000, 1);
	put_big(r, "b/own", 10, 2);
	auto_free char *from = strdup(files_rig_path(r, "a/first"));
	assert_int_equal(link(from, files_rig_path(r, "b/second")), 0);
	assert_int_equal(link(from, files_rig_path(r, "b/third")), 0);
	snapshot_ok(r);
	auto_free char *filter = im_format("%s/b", r->source);
	assert_ok(files_rig_restore(r, filter, root, &err), &err);
	char path[1024];
	struct stat second, third;
	snprintf(path, sizeof path, "%s/b/second", root);
	assert_int_equal(stat(path, &second), 0);
	snprintf(path, sizeof path, "%s/b/third", root);
	assert_int_equal(stat(path, &third), 0);
	assert_int_equal(second.st_ino, third.st_ino);
	assert_int_equal(second.st_size, 100000);
	snprintf(path, sizeof path, "%s/a", root);
	assert_int_not_equal(access(path, F_OK), 0);
	auto_free char *missing = im_format("%s/nothing", r->source);
	assert_int_equal(files_rig_restore(r, missing, root, &err), IM_ENOTFOUND);
}

static void check__finds_what_is_missing(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	char *text = NULL;
	put_big(r, "a/b", 1000, 1);
	files_rig_write(r, "c", "1", 1);
	snapshot_ok(r);
	assert_ok(files_check(r->result.manifest, r->source, "full", &text, &err), &err);
	assert_non_null(strstr(text, "2 files"));
	free(text);
	unlink(files_rig_path(r, "c"));
	assert_int_equal(files_check(r->result.manifest, r->source, "quick", &text, &err), IM_EDIFFERENT);
}

static la_ssize_t to_buffer(struct archive *a, void *context, const void *data, size_t len)
{
	(void)a;
	im_buf_put(context, data, len);
	return (la_ssize_t)len;
}

static void extract(struct im_buf *tar, const char *to)
{
	struct archive *in = archive_read_new(), *out = archive_write_disk_new();
	struct archive_entry *e;
	archive_read_support_format_tar(in);
	archive_write_disk_set_options(out,
	    ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_XATTR |
		ARCHIVE_EXTRACT_ACL);
	assert_int_equal(archive_read_open_memory(in, tar->data, tar->len), 0);
	int rc;
	while ((rc = archive_read_next_header(in, &e)) == ARCHIVE_OK) {
		auto_free char *path = im_format("%s/%s", to, archive_entry_pathname(e));
		auto_free char *link =
		    archive_entry_hardlink(e) ? im_format("%s/%s", to, archive_entry_hardlink(e)) : NULL;
		archive_entry_copy_pathname(e, path);
		if (link)
			archive_entry_copy_hardlink(e, link);
		assert_int_equal(archive_read_extract2(in, e, out), ARCHIVE_OK);
	}
	assert_int_equal(rc, ARCHIVE_EOF);
	archive_read_free(in);
	archive_write_free(out);
}

static int skip_file(struct rebuild *b, const struct rebuild_file *file, uint32_t *ret, struct im_error *err)
{
	(void)b, (void)file, (void)err;
	*ret = 0;
	return 0;
}

static void export__is_a_real_archive(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	auto_buf struct im_buf tar = { 0 };
	put_big(r, "a/big", 2500000, 1);
	put_big(r, "a/small", 100, 2);
	auto_free char *from = strdup(files_rig_path(r, "a/small"));
	assert_int_equal(link(from, files_rig_path(r, "hard")), 0);
	symlink("a", files_rig_path(r, "sym"));
	auto_close int sparse = open(files_rig_path(r, "sparse"), O_RDWR | O_CREAT, 0644);
	assert_int_equal(pwrite(sparse, "x", 1, 1 << 20), 1);
	assert_int_equal(ftruncate(sparse, 3 << 20), 0);
	set_time(r, "a", 1000, 5);
	snapshot_ok(r);
	auto_free char *before = files_rig_describe(r->source);
	struct archive *a = archive_write_new();
	archive_write_set_format_pax(a);
	archive_write_set_options(a, "hdrcharset=BINARY");
	assert_int_equal(archive_write_open2(a, &tar, NULL, to_buffer, NULL, NULL), 0);
	struct fetcher *fetcher;
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &err), &err);
	struct rebuild b = { .snapshot = &r->snapshot,
		.fetcher = fetcher,
		.manifest = r->result.manifest,
		.keyring = r->f.restore->keyring,
		.file = skip_file };
	assert_ok(files_export_tar(&b, a, &err), &err);
	assert_int_equal(archive_write_close(a), 0);
	archive_write_free(a);
	fetcher_free(fetcher);
	assert_true(tar.len < 5 << 20);
	auto_free char *to = im_format("%s/untar", r->f.dir);
	auto_free char *root = im_format("%s/untar%s", r->f.dir, r->source);
	mkdir(to, 0755);
	extract(&tar, to);
	auto_free char *after = files_rig_describe(root);
	assert_string_equal(before, after);
}

struct explained {
	char text[2048];
	uint32_t bad_offset;
};

static bool is_bad(void *context, const struct im_ref *ref)
{
	struct explained *x = context;
	return ref->offset == x->bad_offset;
}

static void on_text(void *context, const char *text)
{
	struct explained *x = context;
	strcat(strcat(x->text, text), "\n");
}

static bool all_bad(void *context, const struct im_ref *ref)
{
	(void)context, (void)ref;
	return true;
}

static void explain__names_paths(void **state)
{
	struct files_rig *r = *state;
	struct im_error err = { 0 };
	struct explained x = { .text = "" };
	struct fetcher *fetcher;
	put_big(r, "a/first", 300000, 1);
	put_big(r, "b/second", 300000, 2);
	snapshot_ok(r);
	assert_ok(fetcher_new(r->f.restore->storage, r->f.restore->keyring, &fetcher, &err), &err);
	struct rebuild b = { .snapshot = &r->snapshot,
		.fetcher = fetcher,
		.manifest = r->result.manifest,
		.keyring = r->f.restore->keyring };
	x.bad_offset = 56 + 88; /* the first entry of a pack for one recipient */
	assert_ok(files_explain(&b, is_bad, &x, on_text, &x, &err), &err);
	assert_non_null(strstr(x.text, r->source));
	assert_true(!!strstr(x.text, "a/first\n") != !!strstr(x.text, "b/second\n"));
	x.text[0] = 0;
	assert_ok(files_explain(&b, all_bad, &x, on_text, &x, &err), &err);
	assert_non_null(strstr(x.text, "cannot be listed"));
	fetcher_free(fetcher);
}

static void validate__refuses_nonsense(void **state)
{
	(void)state;
	struct im_error err = { 0 };
	struct im_config_pair pair = { "hook_timeout", "soon" };
	struct im_config_store s = { .name = "x", .type = "files", .path = "/x", .pairs = &pair, .pair_count = 1 };
	assert_int_equal(files_store_ops.validate(&s, &err), IM_EUSAGE);
	pair = (struct im_config_pair){ "exclude", "" };
	assert_int_equal(files_store_ops.validate(&s, &err), IM_EUSAGE);
	pair = (struct im_config_pair){ "exclude", "*.tmp" };
	assert_int_equal(files_store_ops.validate(&s, &err), 0);
}

#define RIG(name) cmocka_unit_test_setup_teardown(name, files_rig_setup, files_rig_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		RIG(snapshot__restores_contents_of_all_sizes),
		RIG(snapshot__keeps_odd_names),
		RIG(snapshot__keeps_odd_names_in_utf8_locale),
		RIG(snapshot__keeps_deep_and_long_paths),
		RIG(snapshot__keeps_metadata),
		RIG(snapshot__keeps_acls),
		RIG(snapshot__keeps_hard_links),
		RIG(snapshot__keeps_holes),
		RIG(snapshot__reads_unchanged_files_only_once),
		RIG(snapshot__does_not_trust_the_clocks_grain),
		RIG(snapshot__sees_same_size_and_time_swapped_in),
		RIG(snapshot__follows_removal_and_change_of_kind),
		RIG(snapshot__of_many_files_in_many_segments),
		RIG(snapshot__leaves_out_what_is_excluded),
		RIG(snapshot__leaves_out_other_stores_and_the_vault),
		RIG(snapshot__warns_of_databases_every_time),
		RIG(snapshot__skips_sockets),
		RIG(snapshot__fails_when_the_root_is_missing),
		RIG(snapshot__of_a_single_file),
		RIG(snapshot__with_lost_state_stores_nothing_twice),
		RIG(snapshot__reports_a_file_that_never_stands_still),
		RIG(snapshot__keeps_the_prefix_of_a_growing_file),
		RIG(snapshot__reports_what_vanishes_and_follows_no_link_put_in_its_place),
		RIG(snapshot__is_partial_when_hard_links_lose_their_first_name),
		RIG(snapshot__reports_paths_too_long_to_restore),
		cmocka_unit_test(snapshot__reports_what_it_may_not_read),
		RIG(hooks__run_in_order),
		RIG(hooks__pre_failure_fails_the_store_and_post_still_runs),
		RIG(hooks__time_out),
		RIG(hooks__post_failure_is_partial),
		RIG(restore__of_one_path_brings_hard_links_content),
		RIG(check__finds_what_is_missing),
		RIG(export__is_a_real_archive),
		RIG(explain__names_paths),
		cmocka_unit_test(validate__refuses_nonsense),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
