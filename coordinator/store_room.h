/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For store*.c only. */
#ifndef DROVER_STORE_ROOM_H
#define DROVER_STORE_ROOM_H

#include "common/db.h"
#include "coordinator/store.h"

struct store {
	struct db *db;
	const struct clock *clock;
	uint64_t epoch;
	char cluster_id[LIMIT_ID];
};

/* BEGIN, and ERR_STALE if the epoch in the database is not ours any more. */
int store_begin(struct store *store, struct err *err);
/* COMMIT if `ok`, else ROLLBACK. Returns 0 only if it was committed. */
int store_end(struct store *store, bool ok, struct err *err);
/* An event row, within a transaction. */
int store_event_insert(struct store *store, const struct store_event *event, struct err *err);

#endif
