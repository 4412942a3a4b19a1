/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sources of a view share: fuse.c (mounting, threads), fuse_node.c (which file the kernel
 * means), fuse_names.c (names and attributes), fuse_data.c (content), fuse_wait.c (until what is needed
 * has come from the vault).
 *
 * Errors between them are errno values, as the kernel wants them; 0 is success.
 */
#ifndef IM_RESTORE_INSTANT_FUSE_INTERNAL_H
#define IM_RESTORE_INSTANT_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 34

#include "base/cleanup.h"
#include "restore/instant/access.h"
#include "restore/instant/fuse.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <semaphore.h>

#define FUSE_PAGE 4096u
#define FUSE_BUFFER_BYTES (1u << 20) /* the most that one request reads or writes */
#define FUSE_ENTRY_SECONDS 3600.0    /* names, and attributes of ordinary files: only the kernel changes them, through us */
#define FUSE_LAZY_SECONDS 1.0        /* attributes of files that are being filled */
#define FUSE_PROC_NAME_BYTES 32

/* --- nodes: what the kernel knows by a number --- */

struct node {
	struct node *next;  /* in its bucket */
	dev_t dev;
	ino_t ino;
	uint64_t lookups;   /* the kernel will forget it as often */
	unsigned holds, opens;
	int fd;             /* O_PATH; -1: found by handle */
	struct file_handle *handle;
	uint32_t file;      /* number in the table, or ACCESS_NO_FILE */
	bool hashed;
};

struct held { /* a node, and a descriptor (O_PATH) of it, for a while; fd -1: errno in error */
	struct fuse_view *v;
	struct node *node;
	int fd, error;
	bool own;
};

struct nodes {
	pthread_mutex_t mutex;
	struct node root;
	struct node **buckets;
	size_t bucket_count, count;
	size_t pinned, pinned_max; /* nodes that keep a descriptor */
	bool handles;              /* files can be found by handle here */
	struct access_index lazy_files;
};

/* --- content --- */

struct lazy_state { /* by file number */
	pthread_rwlock_t lock; /* written: while it is made shorter; read: while it is written to */
	_Atomic uint32_t last_block;
};

enum job_kind { JOB_READ, JOB_WRITE, JOB_SET, JOB_ALLOCATE };

struct job { /* a request that may have to wait for its content */
	struct job *next;
	enum job_kind kind;
	fuse_req_t req;
	struct node *node;
	int fd;               /* of the open file; -1: by the node */
	uint64_t offset, end; /* of the file, to be there first */
	uint64_t at;          /* READ, WRITE, ALLOCATE */
	uint64_t size;
	int mode;             /* ALLOCATE: fallocate(2)'s; SET: what is set */
	bool writeback;       /* WRITE of mapped pages */
	const uint8_t *data;
	uint8_t *kept;        /* data, if it is ours */
	struct stat attr;     /* SET */
	int64_t since_us;
};

struct serving { /* a thread */
	struct fuse_view *v;
	pthread_t thread;
	uint8_t *buffer;
	struct fuse_buf request;   /* receivers only */
	int result;
};

struct fuse_view {
	struct table *table;
	struct hydrator *hydrator;
	const struct content *content;
	struct fuse_session *session;
	char *target;
	bool mounted;         /* by us, at some time */
	int root_fd, proc_fd; /* the staged folder; /proc/self/fd */
	struct nodes nodes;
	struct lazy_state *lazy;
	sem_t end;            /* a receiver has ended, or stop was asked for */
	pthread_mutex_t mutex; /* the queue */
	pthread_cond_t work;
	struct job *first, **last;
	bool over;
};

extern _Thread_local struct serving *fuse_self; /* the thread that runs; its buffer has FUSE_BUFFER_BYTES */

static inline struct fuse_view *view_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* --- fuse_node.c --- */

int nodes_begin(struct fuse_view *v, struct im_error *err); /* v->root_fd is open */
void nodes_end(struct fuse_view *v);
struct node *node_at(struct fuse_view *v, fuse_ino_t number);
struct held node_hold(struct fuse_view *v, fuse_ino_t number);
void held_end(struct held *h);
#define auto_held IM_CLEANUP(held_end)

/* "/proc/self/fd/N", for calls that take no descriptor of this kind. */
const char *proc_path(char ret[FUSE_PROC_NAME_BYTES], int fd);
/* A descriptor that can be read or written, of one that cannot. -1: errno. */
int node_reopen(const struct fuse_view *v, int fd, int flags);
/* From open to close a node keeps a descriptor: its file may lose all names meanwhile. */
int node_open(struct fuse_view *v, struct node *n);
void node_close(struct fuse_view *v, struct node *n);
/* The file of that name in a folder, one lookup more. */
int node_look_up(struct fuse_view *v, int folder_fd, const char *name, struct fuse_entry_param *ret);
/* … of an open file; as after node_open. */
int node_of_open(struct fuse_view *v, int fd, struct fuse_entry_param *ret);
void node_forget(struct fuse_view *v, fuse_ino_t number, uint64_t count);
/* fd: any of the node. */
int node_stat(const struct fuse_view *v, const struct node *n, int fd, struct stat *ret, double *ret_seconds);
/* Its number in the table while it is not an ordinary file; else ACCESS_NO_FILE. */
uint32_t node_lazy(const struct fuse_view *v, const struct node *n);

/* --- fuse_names.c, fuse_data.c: their operations --- */

void names_operations(struct fuse_lowlevel_ops *ops);
void data_operations(struct fuse_lowlevel_ops *ops);

int data_errno(int code);
/* What the job asks for, and the answer; what it needs is there. Nothing of its node is used after the answer. */
void data_run(struct fuse_view *v, struct job *j);
/* Makes it shorter or longer; what the vault still has of the page it ends in is there. fd: writable, or -1. */
int data_resize(struct fuse_view *v, struct node *n, int fd, uint64_t size);

/* --- fuse_wait.c --- */

int wait_begin(struct fuse_view *v, struct im_error *err);
void wait_end(struct fuse_view *v);
/* Runs it, now or when what it needs is there; j is copied. */
void wait_for(fuse_req_t req, struct job *j);
void *wait_bring(void *serving);     /* a bringer, until wait_stop */
void wait_stop(struct fuse_view *v); /* jobs not begun are answered with an error */

#endif
