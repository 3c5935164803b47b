/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/faults/fault_vfs.h"

#include <assert.h>
#include <sqlite3.h>
#include <string.h>

/* The real file follows the struct. */
struct file {
	sqlite3_file base;
	sqlite3_file *real;
};

static struct {
	struct fault_plan plan;
	unsigned count;
	bool armed, fired, dead;
} now;

static sqlite3_vfs *real_vfs;
static sqlite3_mem_methods real_memory;

/* Counts one of these; true: it fails. */
static bool fails(enum fault_op op)
{
	if (!now.armed)
		return false;
	if (now.dead && op != FAULT_ALLOC && op != FAULT_READ && op != FAULT_SIZE)
		return true;
	if (!(now.plan.ops & (unsigned)op))
		return false;
	now.count++;
	bool hit = now.plan.manner == FAULT_FROM ? now.count >= now.plan.n : now.count == now.plan.n;
	now.fired |= hit;
	return hit;
}

static int code(void)
{
	return now.dead ? SQLITE_IOERR : now.plan.code;
}

static sqlite3_file *real_of(sqlite3_file *file)
{
	return ((struct file *)file)->real;
}

/* ---- files ---- */

static int file_close(sqlite3_file *file)
{
	sqlite3_file *real = real_of(file);
	return real->pMethods ? real->pMethods->xClose(real) : SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *buffer, int bytes, sqlite3_int64 offset)
{
	sqlite3_file *real = real_of(file);
	if (!fails(FAULT_READ))
		return real->pMethods->xRead(real, buffer, bytes, offset);
	if (now.plan.manner != FAULT_SHORT)
		return code();
	memset(buffer, 0, (size_t)bytes);
	return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *buffer, int bytes, sqlite3_int64 offset)
{
	sqlite3_file *real = real_of(file);
	bool was_dead = now.dead;
	if (!fails(FAULT_WRITE))
		return real->pMethods->xWrite(real, buffer, bytes, offset);
	if (now.plan.manner == FAULT_TEAR && !was_dead) {
		now.dead = true;
		(void)real->pMethods->xWrite(real, buffer, bytes / 2, offset);
	}
	return code();
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
	sqlite3_file *real = real_of(file);
	return fails(FAULT_TRUNCATE) ? code() : real->pMethods->xTruncate(real, bytes);
}

static int file_sync(sqlite3_file *file, int flags)
{
	(void)file;
	(void)flags;
	return fails(FAULT_SYNC) ? code() : SQLITE_OK;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *ret_bytes)
{
	sqlite3_file *real = real_of(file);
	return fails(FAULT_SIZE) ? code() : real->pMethods->xFileSize(real, ret_bytes);
}

static int file_lock(sqlite3_file *file, int level)
{
	sqlite3_file *real = real_of(file);
	return fails(FAULT_LOCK) ? code() : real->pMethods->xLock(real, level);
}

static int file_unlock(sqlite3_file *file, int level)
{
	sqlite3_file *real = real_of(file);
	return real->pMethods->xUnlock(real, level);
}

static int file_reserved(sqlite3_file *file, int *ret_reserved)
{
	sqlite3_file *real = real_of(file);
	return fails(FAULT_LOCK) ? code() : real->pMethods->xCheckReservedLock(real, ret_reserved);
}

static int file_control(sqlite3_file *file, int op, void *arg)
{
	sqlite3_file *real = real_of(file);
	return real->pMethods->xFileControl(real, op, arg);
}

static int file_sector(sqlite3_file *file)
{
	sqlite3_file *real = real_of(file);
	return real->pMethods->xSectorSize(real);
}

static int file_traits(sqlite3_file *file)
{
	sqlite3_file *real = real_of(file);
	return real->pMethods->xDeviceCharacteristics(real);
}

static int shm_map(sqlite3_file *file, int page, int bytes, int extend, void volatile **ret_page)
{
	sqlite3_file *real = real_of(file);
	return fails(FAULT_SHM_MAP) ? code() : real->pMethods->xShmMap(real, page, bytes, extend, ret_page);
}

static int shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
	sqlite3_file *real = real_of(file);
	/* Giving a lock back cannot fail. */
	bool takes = (flags & SQLITE_SHM_LOCK) != 0 && fails(FAULT_SHM_LOCK);
	return takes ? code() : real->pMethods->xShmLock(real, offset, count, flags);
}

static void shm_barrier(sqlite3_file *file)
{
	sqlite3_file *real = real_of(file);
	real->pMethods->xShmBarrier(real);
}

static int shm_unmap(sqlite3_file *file, int delete)
{
	sqlite3_file *real = real_of(file);
	return real->pMethods->xShmUnmap(real, delete);
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
	.xCheckReservedLock = file_reserved,
	.xFileControl = file_control,
	.xSectorSize = file_sector,
	.xDeviceCharacteristics = file_traits,
	.xShmMap = shm_map,
	.xShmLock = shm_lock,
	.xShmBarrier = shm_barrier,
	.xShmUnmap = shm_unmap,
};

/* ---- the file system ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	struct file *ours = (struct file *)file;
	(void)vfs;
	ours->base.pMethods = NULL;
	ours->real = (sqlite3_file *)(ours + 1);
	if (fails(FAULT_OPEN))
		return code();
	int rc = real_vfs->xOpen(real_vfs, name, ours->real, flags, ret_flags);
	if (ours->real->pMethods)
		ours->base.pMethods = &methods;
	return rc;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	(void)vfs;
	(void)sync;
	return fails(FAULT_DELETE) ? code() : real_vfs->xDelete(real_vfs, name, 0);
}

/* Nobody waits in a test: whoever holds a lock holds it for good. */
static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
	(void)vfs;
	return microseconds;
}

/* ---- memory ---- */

static void *memory_get(int bytes)
{
	return fails(FAULT_ALLOC) ? NULL : real_memory.xMalloc(bytes);
}

static void *memory_again(void *at, int bytes)
{
	return fails(FAULT_ALLOC) ? NULL : real_memory.xRealloc(at, bytes);
}

void fault_install(void)
{
	static sqlite3_vfs vfs;
	static sqlite3_mem_methods memory;
	int rc = sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory);
	assert(rc == SQLITE_OK);
	memory = real_memory;
	memory.xMalloc = memory_get;
	memory.xRealloc = memory_again;
	rc = sqlite3_config(SQLITE_CONFIG_MALLOC, &memory);
	assert(rc == SQLITE_OK);
	/* From a pool of the connection, what is small would never fail. */
	rc = sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
	assert(rc == SQLITE_OK);
	real_vfs = sqlite3_vfs_find(NULL);
	assert(real_vfs);
	vfs = *real_vfs;
	vfs.zName = "fault";
	vfs.szOsFile = (int)sizeof(struct file) + real_vfs->szOsFile;
	vfs.xOpen = vfs_open;
	vfs.xDelete = vfs_delete;
	vfs.xSleep = vfs_sleep;
	rc = sqlite3_vfs_register(&vfs, 1);
	assert(rc == SQLITE_OK);
	(void)rc;
}

void fault_arm(const struct fault_plan *plan)
{
	now.plan = *plan;
	now.count = 0;
	now.fired = now.dead = false;
	now.armed = true;
}

bool fault_disarm(void)
{
	now.armed = now.dead = false;
	return now.fired;
}
