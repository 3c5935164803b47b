# Two real Xen hosts under QEMU; see tests/lab/README.md. Not part of PROVE: LAB_TESTS is ready to be added to it, with
# $(B)/lab/beat in PROVE_BUILD.
LAB_TESTS := $(sort $(wildcard tests/lab/t_*.sh))
LAB_SH = B=$(B) tests/lab/lab.sh

# The workload of the guests, alone in its initial file system: static.
$(B)/lab/beat: $(wildcard tests/lab/guest/*.c tests/lab/guest/*.h)
	$(call say,LD,$@)
	$(Q)mkdir -p $(dir $@) && $(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -static -pthread -o $@ $(filter %.c,$^)

## lab: two real Xen hosts under QEMU with drover in them, left running for you; installs what it needs (LAB=dir)
.PHONY: lab
lab:
	$(Q)deploy/deps.sh build && deploy/deps.sh lab
	$(Q)$(MAKE) --no-print-directory all $(B)/lab/beat
	$(Q)$(LAB_SH) build && $(LAB_SH) up && $(LAB_SH) hints

## lab-down: take them down, remove their disks; images stay for the next time
.PHONY: lab-down
lab-down:
	$(Q)$(LAB_SH) down

## lab-check: the tests on real Xen hosts; each has a pair of its own
.PHONY: lab-check
lab-check:
	$(Q)deploy/deps.sh build && deploy/deps.sh lab
	$(Q)$(MAKE) --no-print-directory all $(B)/lab/beat
	$(Q)DROVER_TEST_LIMIT=$(PROVE_LIMIT) tests/run.sh $(B) $(LAB_TESTS)
