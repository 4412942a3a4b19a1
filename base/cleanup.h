/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope cleanup: variables that free, close or unlock themselves when they leave scope. Declare
 * and initialise on one line; hand over with TAKE_PTR/TAKE_FD. Never mixed with goto.
 */
#ifndef IM_BASE_CLEANUP_H
#define IM_BASE_CLEANUP_H

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#define IM_CLEANUP(fn) __attribute__((cleanup(fn)))

/* Makes im_auto_NAME(TYPE **) that calls free_fn on a non-null pointer. */
#define IM_DEFINE_AUTO(name, type, free_fn)          \
	static inline void im_auto_##name(type **p)  \
	{                                            \
		if (*p)                              \
			free_fn(*p);                 \
	}

static inline void im_auto_free(void *p)
{
	free(*(void **)p);
}

static inline void im_auto_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

IM_DEFINE_AUTO(closedir, DIR, closedir)

#define auto_free IM_CLEANUP(im_auto_free)
#define auto_close IM_CLEANUP(im_auto_close)
#define auto_closedir IM_CLEANUP(im_auto_closedir)

#define TAKE_PTR(p)                       \
	({                                \
		__typeof__(p) taken_ = (p); \
		(p) = NULL;               \
		taken_;                   \
	})
#define TAKE_FD(fd)                \
	({                         \
		int taken_ = (fd); \
		(fd) = -1;         \
		taken_;            \
	})

#endif
