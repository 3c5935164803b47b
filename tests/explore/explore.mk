# The explorer: linked with the daemons' own objects of what decides.
EXPLORE_C := $(wildcard tests/explore/*.c)
EXPLORE_CORE := common/verdict.c coordinator/core/migration.c coordinator/core/migration_table.c agent/core/session.c \
	agent/core/leg_rules.c
$(B)/test/explore: $(call objs_of,$(EXPLORE_C) $(EXPLORE_CORE))
	$(call say,LD,$@)
	$(Q)mkdir -p $(dir $@) && $(CC) $(LDFLAGS_ALL) -o $@ $^

PROVE += tests/explore/explore.sh
PROVE_BUILD += $(B)/test/explore

## explore: every state of one migration with the code that decides, and each mutant of it found; FAULTS=2 goes deeper
.PHONY: explore
explore: all $(B)/test/explore
	$(Q)FAULTS=$(FAULTS) DROVER_TEST_LIMIT=$(PROVE_LIMIT) tests/run.sh $(B) tests/explore/explore.sh
