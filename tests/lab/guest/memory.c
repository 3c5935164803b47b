/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <sys/mman.h>

#include "pattern.h"
#include "work.h"

#define PAGE_WORDS (WORK_PAGE / sizeof(uint64_t))

static uint64_t *page_at(const struct memory *memory, size_t page)
{
	return (uint64_t *)(void *)(memory->base + page * WORK_PAGE);
}

static void page_write(struct memory *memory, size_t page)
{
	memory->generation[page]++;
	pattern_fill(page_at(memory, page), PAGE_WORDS, pattern_seed(memory->boot, page, memory->generation[page]));
}

static void page_check(struct memory *memory, size_t page)
{
	if (!pattern_is(page_at(memory, page), PAGE_WORDS, pattern_seed(memory->boot, page, memory->generation[page])))
		memory->wrong++;
}

int memory_open(struct memory *memory, uint64_t boot, size_t bytes)
{
	*memory = (struct memory) { .boot = boot, .pages = bytes / WORK_PAGE };
	if (memory->pages == 0)
		return 0;
	memory->base =
		mmap(NULL, memory->pages * WORK_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory->generation = calloc(memory->pages, sizeof(memory->generation[0]));
	if (memory->base == MAP_FAILED || memory->generation == NULL)
		return -1;
	for (size_t page = 0; page < memory->pages; page++)
		page_write(memory, page);
	return 0;
}

void memory_dirty(struct memory *memory, size_t pages)
{
	for (size_t i = 0; i < pages && memory->pages > 0; i++) {
		page_check(memory, memory->dirty_next);
		page_write(memory, memory->dirty_next);
		memory->dirty_next = (memory->dirty_next + 1) % memory->pages;
	}
}

void memory_check(struct memory *memory, size_t pages)
{
	for (size_t i = 0; i < pages && memory->pages > 0; i++) {
		page_check(memory, memory->check_next);
		memory->check_next = (memory->check_next + 1) % memory->pages;
	}
}
