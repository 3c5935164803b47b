/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/core/admission.h"

static bool runs(const struct admission_entry *entry)
{
	return entry->active || entry->start;
}

static bool fits(const struct admission_limits *limits, const struct admission_entry *entries, size_t count,
                 const struct admission_entry *wanted)
{
	uint32_t total = 0, source = 0, destination = 0;
	for (size_t i = 0; i < count; i++) {
		const struct admission_entry *entry = &entries[i];
		if (!runs(entry))
			continue;
		if (entry->vm == wanted->vm)
			return false;
		total++;
		source += entry->source == wanted->source;
		destination += entry->destination == wanted->destination;
	}
	return (limits->total == 0 || total < limits->total) &&
	       (limits->per_source == 0 || source < limits->per_source) &&
	       (limits->per_destination == 0 || destination < limits->per_destination);
}

static bool goes_before(const struct admission_entry *a, const struct admission_entry *b)
{
	return a->priority != b->priority ? a->priority > b->priority : a->id < b->id;
}

/* The best one behind `last` (NULL: of all), NULL if there is none. */
static struct admission_entry *next_after(struct admission_entry *entries, size_t count,
                                          const struct admission_entry *last)
{
	struct admission_entry *best = NULL;
	for (size_t i = 0; i < count; i++) {
		struct admission_entry *entry = &entries[i];
		if (entry->active || !entry->startable)
			continue;
		if (last != NULL && !goes_before(last, entry))
			continue;
		if (best == NULL || goes_before(entry, best))
			best = entry;
	}
	return best;
}

void admission_decide(const struct admission_limits *limits, struct admission_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		entries[i].start = false;
	struct admission_entry *entry = next_after(entries, count, NULL);
	while (entry != NULL) {
		entry->start = fits(limits, entries, count, entry);
		entry = next_after(entries, count, entry);
	}
}
