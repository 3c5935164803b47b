# Faults on a schedule, with real processes.
$(B)/test/crash.so: tests/chaos/crash_shim.c
	$(call say,LD,$@)
	$(Q)mkdir -p $(dir $@) && $(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O1 -g -fPIC -fvisibility=hidden -shared -o $@ $< -ldl

CRASH := $(addprefix tests/chaos/,crash_coordinator.sh crash_agents.sh crash_legs.sh crash_retry.sh resolve.sh) \
	$(addprefix tests/chaos/gone.sh:,coordinator source $(addprefix hang-,coordinator source destination source-leg destination-leg))
PROVE += $(CRASH)
PROVE_BUILD += $(B)/test/crash.so

## crash: each party of a migration killed, hung or gone at each write of its journal; STRIDE=1: each STRIDE-th
.PHONY: crash
crash: all $(B)/test/crash.so
	$(Q)STRIDE=$(or $(STRIDE),1) DROVER_TEST_LIMIT=100000 tests/run.sh $(B) $(CRASH)

MINUTES ?= 5
# Part of `make prove` as well, for five minutes and with a seed that is drawn and printed.
PROVE += tests/chaos/chaos.sh

## chaos: faults of all kinds on a fleet under load, for MINUTES=5, as drawn from SEED (default: a new one)
.PHONY: chaos
chaos: all
	$(Q)MINUTES=$(MINUTES) SEED=$(SEED) bash tests/chaos/chaos.sh $(B)
