/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One writer of the commits campaign (scripts/commits): commits one row after the other to a
 * database that others write too, and notes for each when it began and when it was acknowledged.
 * Of its rows only the newest KEEP stay, so that the database remains small.
 *
 * usage: imvault-write-commits DB NOTES WRITER COUNT RATE KEEP AUTOCHECKPOINT
 *
 * NOTES: two int64 per commit, microseconds since 1970 UTC: before BEGIN, after COMMIT (0: never).
 * RATE: commits per second, 0: as many as there can be. SIGTERM ends it after a whole commit.
 */
#include <sqlite3.h>

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BUSY_US = 300, BUSY_LIMIT_US = 60 * 1000000 };

struct writer {
	sqlite3 *db;
	sqlite3_stmt *begin, *insert, *delete, *commit;
	int64_t (*notes)[2];
	int64_t id, count, rate, keep;
};

static volatile sig_atomic_t stopped;

static void on_term(int number)
{
	(void)number;
	stopped = 1;
}

static int64_t now_us(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const struct writer *w, const char *doing)
{
	fprintf(stderr, "writer %lld: %s: %s\n", (long long)w->id, doing, sqlite3_errmsg(w->db));
	exit(1);
}

/* Short waits of one length: SQLite's own grow, and four writers in a row would starve the last. */
static int on_busy(void *context, int times)
{
	(void)context;
	usleep(BUSY_US);
	return (int64_t)times * BUSY_US < BUSY_LIMIT_US;
}

static sqlite3_stmt *prepare(const struct writer *w, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	if (sqlite3_prepare_v3(w->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK)
		die(w, sql);
	return statement;
}

static void step(const struct writer *w, sqlite3_stmt *statement)
{
	if (sqlite3_step(statement) != SQLITE_DONE)
		die(w, sqlite3_sql(statement));
	sqlite3_reset(statement);
}

/* "WRITER:N;" again and again, of a length that varies; the campaign makes the same. */
static int make_body(char *ret, int64_t writer, int64_t n)
{
	char unit[48];
	int unit_len = snprintf(unit, sizeof unit, "%lld:%lld;", (long long)writer, (long long)n);
	int len = 20 + (int)((uint32_t)n * 2654435761u >> 8) % 200;
	for (int i = 0; i < len; i++)
		ret[i] = unit[i % unit_len];
	return len;
}

static void open_all(struct writer *w, const char *database, const char *notes, int autocheckpoint)
{
	int fd = open(notes, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	size_t size = (size_t)w->count * sizeof *w->notes;
	if (fd < 0 || ftruncate(fd, (off_t)size) || (w->notes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED) {
		perror(notes);
		exit(1);
	}
	if (sqlite3_open(database, &w->db) != SQLITE_OK)
		die(w, database);
	sqlite3_busy_handler(w->db, on_busy, NULL);
	sqlite3_exec(w->db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
	sqlite3_wal_autocheckpoint(w->db, autocheckpoint);
	w->begin = prepare(w, "BEGIN IMMEDIATE");
	w->insert = prepare(w, "INSERT INTO entry (writer, n, at, body) VALUES (?, ?, ?, ?)");
	w->delete = prepare(w, "DELETE FROM entry WHERE writer = ? AND n = ?");
	w->commit = prepare(w, "COMMIT");
}

static void commit_row(struct writer *w, int64_t n)
{
	char body[256];
	int len = make_body(body, w->id, n);
	w->notes[n][0] = now_us(CLOCK_REALTIME);
	step(w, w->begin);
	sqlite3_bind_int64(w->insert, 1, w->id);
	sqlite3_bind_int64(w->insert, 2, n);
	sqlite3_bind_int64(w->insert, 3, w->notes[n][0]);
	sqlite3_bind_blob(w->insert, 4, body, len, SQLITE_STATIC);
	step(w, w->insert);
	if (n >= w->keep) {
		sqlite3_bind_int64(w->delete, 1, w->id);
		sqlite3_bind_int64(w->delete, 2, n - w->keep);
		step(w, w->delete);
	}
	step(w, w->commit);
	w->notes[n][1] = now_us(CLOCK_REALTIME);
}

int main(int argc, char **argv)
{
	if (argc != 8) {
		fprintf(stderr, "usage: imvault-write-commits DB NOTES WRITER COUNT RATE KEEP AUTOCHECKPOINT\n");
		return 2;
	}
	struct writer w = { .id = atoll(argv[3]), .count = atoll(argv[4]), .rate = atoll(argv[5]), .keep = atoll(argv[6]) };
	struct sigaction action = { .sa_handler = on_term };
	sigaction(SIGTERM, &action, NULL);
	open_all(&w, argv[1], argv[2], atoi(argv[7]));
	int64_t start = now_us(CLOCK_MONOTONIC);
	for (int64_t n = 0; n < w.count && !stopped; n++) {
		commit_row(&w, n);
		int64_t ahead = w.rate ? start + n * 1000000 / w.rate - now_us(CLOCK_MONOTONIC) : 0;
		if (ahead > 0)
			usleep((useconds_t)ahead);
	}
	return 0; /* not closed: the last to close would checkpoint and delete the WAL */
}
