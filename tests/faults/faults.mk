# An environment that fails: disks, memory, descriptors, clocks. With real processes; the unit tests are in tests/unit.
$(B)/test/faults.so: tests/faults/env_shim.c
	$(call say,LD,$@)
	$(Q)mkdir -p $(dir $@) && $(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O1 -g -fPIC -fvisibility=hidden -shared -o $@ $< -ldl

FAULTS := $(sort $(wildcard tests/faults/t_*.sh))
PROVE += $(FAULTS)
PROVE_BUILD += $(B)/test/faults.so

## faults: disks, memory, descriptors and clocks fail under real processes
.PHONY: faults
faults: all $(B)/test/faults.so
	$(Q)tests/run.sh $(B) $(FAULTS)
