# Programs that integration tests run beside ours, from test/ in the build directory.
TOOLS := wire notify
wire_ROOMS := shell proto common
notify_ROOMS := common

define tool_rules
$(B)/test/$(1): $(B)/obj/tests/integration/$(1).o $(foreach r,$($(1)_ROOMS),$(B)/lib/lib$(r).a)
	$$(call say,LD,$$@)
	$(Q)mkdir -p $$(dir $$@) && $(CC) $(LDFLAGS_ALL) -o $$@ $$^ $$(call libs_of,$($(1)_ROOMS)) -lm
$(B)/obj/tests/integration/$(1).o: EXTRA = $$(call cflags_of,$($(1)_ROOMS))
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rules,$(t))))
INTEGRATION_BINS := $(TOOLS:%=$(B)/test/%)
