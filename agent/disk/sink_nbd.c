/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "agent/disk/nbdio.h"
#include "agent/disk/sink_int.h"

/* For servers that cannot zero by themselves. */
static const unsigned char zeroes[SINK_ZERO_BYTES];

static int on_complete(void *user_data, int *error)
{
	struct sink_request *request = user_data;
	struct err why = { 0 };
	if (*error == 0)
		sink_done(request, NULL);
	else if (*error == ENOTCONN || *error == ESHUTDOWN)
		err_set(&why, ERR_PEER_LOST, "the connection to the exporter broke");
	else
		err_errno(&why, ERR_EXPORTER, *error, "write at the exporter");
	if (why.code != ERR_NONE)
		sink_done(request, &why);
	return 1; /* libnbd may forget it */
}

static int nbd_start(struct sink *sink, struct sink_request *request, struct err *err)
{
	struct nbd_handle *nbd = sink->driver;
	nbd_completion_callback done = { .callback = on_complete, .user_data = request };
	int64_t cookie = -1;
	switch (request->what) {
	case SINK_WRITE:
		cookie = nbd_aio_pwrite(nbd, request->buffer, request->bytes, request->offset, done, 0);
		break;
	case SINK_ZERO:
		if (nbd_can_zero(nbd) > 0)
			cookie = nbd_aio_zero(nbd, request->bytes, request->offset, done, 0);
		else
			cookie = nbd_aio_pwrite(nbd, zeroes, request->bytes, request->offset, done, 0);
		break;
	case SINK_FLUSH:
		cookie = nbd_aio_flush(nbd, done, 0);
		break;
	}
	if (cookie >= 0)
		return 0;
	bool gone = nbd_aio_is_dead(nbd) > 0 || nbd_aio_is_closed(nbd) > 0;
	return err_set(err, gone ? ERR_PEER_LOST : ERR_EXPORTER, "NBD: %.300s", nbd_get_error());
}

static int nbd_turn(struct sink *sink, int64_t deadline_ms, struct err *err)
{
	bool moved;
	return nbdio_turn(sink->driver, &sink->cancel, deadline_ms, &moved, err);
}

static void nbd_shut(struct sink *sink)
{
	nbdio_close(sink->driver);
}

static const struct sink_ops sink_nbd = { .start = nbd_start, .turn = nbd_turn, .close = nbd_shut };

int sink_nbd_open(struct sink *sink, const struct exporter_access *access, int fd, struct err *err)
{
	struct nbd_handle *nbd;
	if (nbdio_open(&nbd, fd, access->export_name, NULL, &sink->cancel, err) < 0)
		return -1;
	if (nbd_get_size(nbd) != (int64_t)access->size_bytes || nbd_is_read_only(nbd) != 0 || nbd_can_flush(nbd) <= 0) {
		nbd_close(nbd);
		return err_set(err, ERR_EXPORTER, "the export has another size, is read-only, or cannot be flushed");
	}
	sink->driver = nbd;
	sink->ops = &sink_nbd;
	return 0;
}
