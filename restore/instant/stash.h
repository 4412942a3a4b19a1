/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many descriptors in one: they lie, sent and never received, in the queue of a local socket, and
 * live as long as anybody has that one socket open. Whoever holds it (a service that inherited it,
 * systemd's descriptor store) keeps the event group of an instant restore alive without knowing
 * anything about it, and a later command can take copies of all of them out (MSG_PEEK leaves them
 * there). See unix(7), SCM_RIGHTS.
 */
#ifndef IM_RESTORE_INSTANT_STASH_H
#define IM_RESTORE_INSTANT_STASH_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STASH_MAX (200u * 200u)

/* As many descriptors as this process may have; returns how many it could have before. */
uint64_t stash_raise_limit(void);
/* Copies of all fds go in; *ret_fd is the socket. */
int stash_make(const int *fds, size_t count, int *ret_fd, struct im_error *err);
/* Copies of all that are in it, in their order: malloc'ed, each to be closed. */
int stash_look(int fd, int **ret_fds, size_t *ret_count, struct im_error *err);
/* Takes everything out and closes it; who holds the socket holds nothing any more. */
void stash_empty(int fd);
uint64_t stash_number(int fd); /* of the socket, as /proc shows it; the same for every holder until the next boot */

/* Calls fn for each other process that has it open (of those we may look at); not 0 ends the walk and is returned. */
int stash_each_holder(uint64_t number, int (*fn)(void *context, pid_t pid, int its_fd), void *context);
/* A descriptor of our own for a stash that some process holds. IM_ENOTFOUND: nobody does. */
int stash_find(uint64_t number, int *ret_fd, struct im_error *err);

#endif
