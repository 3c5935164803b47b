/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hosts and what they have. */
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "coordinator/store_room.h"

static int put_host(struct store *store, const struct store_host *host, struct err *err)
{
	if (db_exec(store->db, err,
	            "UPDATE host SET pool = ?, key_name = ?, boot_id = ?, journal_id = ?, software = ?,"
	            " last_seen_wall_ms = ? WHERE name = ?",
	            "sssssis", host->pool, host->key, host->boot_id, host->journal_id, host->software,
	            host->last_seen_wall_ms, host->name) != 0)
		return -1;
	if (db_changes(store->db) != 0)
		return 0;
	return db_exec(store->db, err,
	               "INSERT INTO host (name, pool, key_name, boot_id, journal_id, software, first_seen_wall_ms,"
	               " last_seen_wall_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
	               "ssssssii", host->name, host->pool, host->key, host->boot_id, host->journal_id, host->software,
	               host->first_seen_wall_ms, host->last_seen_wall_ms);
}

int store_host_put(struct store *store, const struct store_host *host, struct err *err)
{
	if (store_begin(store, err) != 0)
		return -1;
	return store_end(store, put_host(store, host, err) == 0, err);
}

int store_host_seen(struct store *store, const char *name, int64_t wall_ms, struct err *err)
{
	return db_exec(store->db, err, "UPDATE host SET last_seen_wall_ms = ? WHERE name = ?", "is", wall_ms, name);
}

static int forget_host(struct store *store, const struct store_event *event, struct err *err)
{
	if (db_exec(store->db, err, "DELETE FROM vm WHERE host = ?", "s", event->host) != 0 ||
	    db_exec(store->db, err, "DELETE FROM host WHERE name = ?", "s", event->host) != 0)
		return -1;
	return store_event_insert(store, event, err);
}

int store_host_forget(struct store *store, const struct store_event *event, struct err *err)
{
	if (store_begin(store, err) != 0)
		return -1;
	return store_end(store, forget_host(store, event, err) == 0, err);
}

static void read_host(sqlite3_stmt *stmt, struct store_host *host)
{
	db_text(stmt, 0, host->name, sizeof(host->name));
	db_text(stmt, 1, host->pool, sizeof(host->pool));
	db_text(stmt, 2, host->key, sizeof(host->key));
	db_text(stmt, 3, host->boot_id, sizeof(host->boot_id));
	db_text(stmt, 4, host->journal_id, sizeof(host->journal_id));
	db_text(stmt, 5, host->software, sizeof(host->software));
	host->first_seen_wall_ms = db_int(stmt, 6);
	host->last_seen_wall_ms = db_int(stmt, 7);
}

int store_host_list(struct store *store, struct store_host **ret_list, size_t *ret_count, struct err *err)
{
	struct store_host *list = NULL;
	size_t count = 0, room = 0;
	sqlite3_stmt *stmt = db_query(store->db, err,
	                              "SELECT name, pool, key_name, boot_id, journal_id, software, first_seen_wall_ms,"
	                              " last_seen_wall_ms FROM host ORDER BY name",
	                              "");
	int more = stmt ? 1 : -1;
	while (more == 1 && (more = db_step(store->db, stmt, err)) == 1) {
		if (count == room) {
			room = room ? 2 * room : 16;
			struct store_host *bigger = realloc(list, room * sizeof(*list));
			if (!bigger) {
				more = err_set(err, ERR_NO_MEMORY, "list hosts: no memory");
				break;
			}
			list = bigger;
		}
		read_host(stmt, &list[count++]);
	}
	db_end(stmt);
	if (more < 0) {
		free(list);
		return -1;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}

static int put_inventory(struct store *store, const char *host, const struct msg_inventory *inventory, const void *blob,
                         size_t bytes, struct err *err)
{
	if (db_exec(store->db, err, "UPDATE host SET inventory = ?, inventory_digest = ? WHERE name = ?", "bus", blob,
	            bytes, inventory->digest, host) != 0)
		return -1;
	if (db_exec(store->db, err, "DELETE FROM vm WHERE host = ?", "s", host) != 0)
		return -1;
	for (uint32_t i = 0; i < inventory->vm_count; i++) {
		const struct msg_vm *vm = &inventory->vms[i];
		char uuid[37];
		uuid_unparse_lower(vm->uuid, uuid);
		if (db_exec(store->db, err,
		            "INSERT INTO vm (host, uuid, name, state, memory_bytes) VALUES (?, ?, ?, ?, ?)", "sssiu",
		            host, uuid, vm->name, (int64_t)vm->state, vm->memory_bytes) != 0)
			return err_wrap(err, "VM %s (%s) on %s", vm->name, uuid, host);
	}
	return 0;
}

int store_inventory_put(struct store *store, const char *host, const struct msg_inventory *inventory, struct err *err)
{
	void *blob = NULL;
	size_t bytes = 0;
	if (msg_inventory_encode(inventory, &blob, &bytes, err) != 0)
		return -1;
	int result = store_begin(store, err);
	if (result == 0)
		result = store_end(store, put_inventory(store, host, inventory, blob, bytes, err) == 0, err);
	free(blob);
	return result;
}

int store_inventory_get(struct store *store, const char *host, struct msg_inventory *ret_inventory, struct err *err)
{
	sqlite3_stmt *stmt = db_query(store->db, err,
	                              "SELECT inventory FROM host WHERE name = ? AND inventory IS NOT NULL", "s", host);
	if (!stmt)
		return -1;
	int result = db_step(store->db, stmt, err);
	if (result == 1) {
		size_t bytes = 0;
		const void *blob = db_blob(stmt, 0, &bytes);
		if (msg_inventory_decode(blob, bytes, ret_inventory, err) != 0)
			result = err_wrap(err, "inventory of %s in the database", host);
	}
	db_end(stmt);
	return result;
}
