# Cancels that race with every write, and that come while something hangs; real processes. Uses the shim of tests/chaos.
CANCEL := tests/cancel/hung.sh $(addprefix tests/cancel/race.sh:,coordinator source destination source-leg destination-leg)
PROVE += $(CANCEL)
PROVE_BUILD += $(B)/test/crash.so

## cancel: a cancel at each write of each party's journal, and while something hangs; real processes
.PHONY: cancel
cancel: all $(B)/test/crash.so
	$(Q)STRIDE=$(or $(STRIDE),1) DROVER_TEST_LIMIT=100000 tests/run.sh $(B) $(CANCEL)
