/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SQLite's files: the standard ones, but that nothing is synced (nobody crashes but in virtual time) and that whoever
 * commits can be killed by it: before the first page of the transaction is in the log, or after the whole of it is.
 * A process that is dying writes nothing any more.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sim/world.h"

struct file {
	sqlite3_file base;
	bool log; /* the write-ahead log */
	sqlite3_file *real;
};

static sqlite3_vfs *below;

static sqlite3_file *real_of(sqlite3_file *file)
{
	return ((struct file *)file)->real;
}

static int file_close(sqlite3_file *file)
{
	return real_of(file)->pMethods->xClose(real_of(file));
}
static int file_read(sqlite3_file *file, void *to, int bytes, sqlite3_int64 at)
{
	return real_of(file)->pMethods->xRead(real_of(file), to, bytes, at);
}

static int file_write(sqlite3_file *file, const void *from, int bytes, sqlite3_int64 at)
{
	return proc_is_dying() ? SQLITE_IOERR_WRITE : real_of(file)->pMethods->xWrite(real_of(file), from, bytes, at);
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
	return proc_is_dying() ? SQLITE_IOERR_TRUNCATE : real_of(file)->pMethods->xTruncate(real_of(file), bytes);
}

/* The log is synced once in each commit, when all of it is in the file. */
static int file_sync(sqlite3_file *file, int flags)
{
	(void)flags;
	if (proc_is_dying())
		return SQLITE_IOERR_FSYNC;
	if (!((struct file *)file)->log || !world_current)
		return SQLITE_OK;
	world.commits++;
	int killed = fault_at_commit();
	if (killed) {
		trace("killed %s a commit", killed == 1 ? "in" : "after");
		proc_end(world_current, 9);
	}
	return killed == 1 ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *ret_bytes)
{
	return real_of(file)->pMethods->xFileSize(real_of(file), ret_bytes);
}
static int file_lock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xLock(real_of(file), level);
}
static int file_unlock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xUnlock(real_of(file), level);
}
static int file_check_lock(sqlite3_file *file, int *ret_reserved)
{
	return real_of(file)->pMethods->xCheckReservedLock(real_of(file), ret_reserved);
}
static int file_control(sqlite3_file *file, int what, void *arg)
{
	return real_of(file)->pMethods->xFileControl(real_of(file), what, arg);
}
static int file_sector(sqlite3_file *file)
{
	return real_of(file)->pMethods->xSectorSize(real_of(file));
}
static int file_device(sqlite3_file *file)
{
	return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}
static int file_shm_map(sqlite3_file *file, int page, int bytes, int extend, void volatile **ret)
{
	return real_of(file)->pMethods->xShmMap(real_of(file), page, bytes, extend, ret);
}
static int file_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
	return real_of(file)->pMethods->xShmLock(real_of(file), offset, count, flags);
}
static void file_shm_barrier(sqlite3_file *file)
{
	real_of(file)->pMethods->xShmBarrier(real_of(file));
}
static int file_shm_unmap(sqlite3_file *file, int drop)
{
	return real_of(file)->pMethods->xShmUnmap(real_of(file), drop);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_lock,
	.xFileControl = file_control,
	.xSectorSize = file_sector,
	.xDeviceCharacteristics = file_device,
	.xShmMap = file_shm_map,
	.xShmLock = file_shm_lock,
	.xShmBarrier = file_shm_barrier,
	.xShmUnmap = file_shm_unmap,
};

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	struct file *own = (struct file *)file;
	(void)vfs;
	memset(own, 0, sizeof(*own));
	own->real = (sqlite3_file *)(own + 1);
	own->log = (flags & SQLITE_OPEN_WAL) != 0;
	int rc = below->xOpen(below, name, own->real, flags, ret_flags);
	if (own->real->pMethods)
		own->base.pMethods = &methods;
	return rc;
}

/* Randomness decides nothing that anybody sees, but it is asked for where the real clock is, too. */
static int vfs_random(sqlite3_vfs *vfs, int bytes, char *to)
{
	(void)vfs;
	memset(to, 7, (size_t)bytes);
	return bytes;
}

int vfs_begin(struct err *err)
{
	static sqlite3_vfs own;
	below = sqlite3_vfs_find(NULL);
	if (!below)
		return err_set(err, ERR_INTERNAL, "SQLite has no files");
	own = *below;
	own.zName = "sim";
	own.szOsFile = (int)sizeof(struct file) + below->szOsFile;
	own.xOpen = vfs_open;
	own.xRandomness = vfs_random;
	return sqlite3_vfs_register(&own, 1) == SQLITE_OK ? 0 : err_set(err, ERR_INTERNAL, "SQLite's files");
}

void vfs_forget(const struct machine *machine)
{
	char path[PATHS_MAX + 32];
	struct stat st;
	(void)snprintf(path, sizeof(path), "%s/journal.db-wal", machine->paths.lib);
	if (stat(path, &st) == 0 && truncate(path, st.st_size - (off_t)chance_below((uint64_t)st.st_size / 2 + 1)) == 0)
		trace("%s has forgotten", machine->name);
}
