/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In place of the view where imvault is built without libfuse.
 */
#include "restore/instant/fuse.h"

#define WITHOUT "this imvault was built without FUSE (meson option fuse)"

int fuse_view_probe(const char *folder, struct im_error *err)
{
	(void)folder;
	return im_fail(err, IM_EUSAGE, WITHOUT);
}

int fuse_view_open(const struct fuse_view_options *options, struct fuse_view **ret, struct im_error *err)
{
	(void)options;
	(void)ret;
	return im_fail(err, IM_EUSAGE, WITHOUT);
}

int fuse_view_serve(struct fuse_view *v, struct im_error *err)
{
	(void)v;
	return im_fail(err, IM_EUSAGE, WITHOUT);
}

void fuse_view_stop(struct fuse_view *v)
{
	(void)v;
}

void fuse_view_close(struct fuse_view *v)
{
	(void)v;
}

bool fuse_view_is_mounted(const char *target)
{
	(void)target;
	return false;
}

int fuse_view_unmount(const char *target, bool lazily, struct im_error *err)
{
	(void)target;
	(void)lazily;
	(void)err;
	return 0;
}
