# Unit tests, one line each: test_NAME_ROOMS = rooms it links, in link order (lower rooms last).
UNIT_TESTS := test_verdict
test_verdict_ROOMS := common
UNIT_TESTS += test_err test_proc test_db test_conf test_units test_keys test_bus test_loop
test_err_ROOMS = common
test_proc_ROOMS = common
test_units_ROOMS = common
test_conf_ROOMS = shell proto common
test_db_ROOMS = shell proto common
test_loop_ROOMS = shell proto common
test_keys_ROOMS = shell proto common
test_bus_ROOMS = shell proto common
UNIT_TESTS += test_msg
test_msg_ROOMS = proto common
UNIT_TESTS += test_cli_format test_cli
test_cli_format_ROOMS = cli common
test_cli_ROOMS = cli shell proto common
UNIT_TESTS += test_msg_limits test_msg_hostile
test_msg_limits_ROOMS = proto common
test_msg_hostile_ROOMS = proto common
UNIT_TESTS += test_admission test_migration test_migration_operator test_store test_api_operator test_detection test_api test_coordinator
UNIT_TESTS += test_api_again
test_api_again_ROOMS = coord ccore shell proto common
test_admission_ROOMS = ccore common
test_migration_ROOMS = ccore proto common
test_migration_operator_ROOMS = ccore proto common
test_detection_ROOMS = coord ccore shell proto common
test_api_operator_ROOMS = coord ccore shell proto common
test_store_ROOMS = coord ccore shell proto common
test_api_ROOMS = coord ccore shell proto common
test_coordinator_ROOMS = coord ccore shell proto common
UNIT_TESTS += test_qmp test_sr test_exporter test_sink test_disk_source test_disk_copy
test_qmp_ROOMS = disk proto common
test_sr_ROOMS = disk proto common
test_exporter_ROOMS = disk proto common
test_sink_ROOMS = disk proto common
test_disk_source_ROOMS = disk proto common
test_disk_copy_ROOMS = disk proto common
UNIT_TESTS += test_hvsim
test_hvsim_ROOMS = hvsim disk proto common
$(B)/test/test_hvsim: | $(B)/bin/drover-guest
UNIT_TESTS += test_session test_converge test_journal test_journal_facts test_journal_rows test_agent
UNIT_TESTS += test_leg_rules
test_leg_rules_ROOMS = acore proto common
test_session_ROOMS = acore proto common
test_converge_ROOMS = acore proto common
test_journal_ROOMS = journal acore shell proto common
test_journal_facts_ROOMS = journal acore shell proto common
test_journal_rows_ROOMS = journal acore shell proto common
test_agent_ROOMS = agent journal acore disk shell proto common
UNIT_TESTS += test_cli_args
test_cli_args_ROOMS = cli proto common
UNIT_TESTS += test_tls
test_tls_ROOMS = leg disk journal acore shell proto common
UNIT_TESTS += test_stream test_marks
test_marks_ROOMS = leg disk journal acore shell proto common
test_stream_ROOMS = leg disk journal acore shell proto common
UNIT_TESTS += test_relay
test_relay_ROOMS = leg disk journal acore shell proto common
UNIT_TESTS += test_leg test_leg_retry
test_leg_ROOMS = hvsim disk journal acore shell proto common
test_leg_retry_ROOMS = $(test_leg_ROOMS)
$(B)/test/test_leg $(B)/test/test_leg_retry: | $(B)/bin/drover-guest $(B)/bin/drover-leg-sim
UNIT_TESTS += test_verify test_guest test_fleet
test_verify_ROOMS = sim hvsim disk journal acore shell proto common
test_guest_ROOMS = sim hvsim disk proto common
test_fleet_ROOMS = sim hvsim disk journal acore shell proto common
$(B)/test/test_verify: | $(B)/bin/drover-guest
$(B)/test/test_guest: | $(B)/bin/drover-guest
UNIT_TESTS += test_migration_story
test_migration_story_ROOMS = ccore proto common
# Its own writes are noted: linked with what others have preloaded.
UNIT_TESTS += test_power
test_power_ROOMS = sim common
$(B)/test/test_power: $(B)/obj/agent/sim/power_shim.o
# With a VFS and an allocator between SQLite and the machine that fail when they are told to.
UNIT_TESTS += test_faults_store test_faults_journal test_faults_coordinator
test_faults_store_ROOMS = coord ccore shell proto common
test_faults_journal_ROOMS = journal acore shell proto common
test_faults_coordinator_ROOMS = coord ccore shell proto common
$(B)/test/test_faults_coordinator: $(B)/obj/tests/faults/fault_vfs.o
FAULT_O = $(B)/obj/tests/faults/fault_vfs.o $(B)/obj/tests/faults/fault_rig.o
$(B)/test/test_faults_store $(B)/test/test_faults_journal: $(FAULT_O)
UNIT_TESTS += test_schema
test_schema_ROOMS = coord ccore journal acore shell proto common
UNIT_TESTS += test_survey
test_survey_ROOMS = hvsim disk journal acore shell proto common
$(B)/test/test_survey: | $(B)/bin/drover-guest $(B)/bin/drover-leg-sim
# The driver for Xen: what of it needs no Xen; the save helper with a libxc that is not one; all of it with a libxl that
# is not one.
ifdef HAVE_XEN
UNIT_TESTS += test_xen_parts test_xen_helper test_xen_driver test_xen_dest
test_xen_driver_ROOMS = hvxen disk proto common
test_xen_dest_ROOMS = hvxen disk proto common
$(B)/test/test_xen_driver $(B)/test/test_xen_dest: $(B)/obj/tests/unit/xen_fake.o | $(B)/test/drover-xen-save-helper
$(B)/obj/tests/unit/xen_fake.o: EXTRA = $(call cflags_of,hvxen)
test_xen_parts_ROOMS = hvxen disk proto common
test_xen_helper_ROOMS = hvxen common
$(B)/test/test_xen_helper: | $(B)/test/drover-xen-save-helper
$(B)/obj/tests/unit/xen_fake_libxc.o: EXTRA = $(hvxen_CFLAGS)
$(B)/test/drover-xen-save-helper: $(B)/obj/agent/hypervisor/xen_save_helper.o $(B)/obj/tests/unit/xen_fake_libxc.o $(B)/lib/libhvxen.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(dir $@) && $(CC) $(LDFLAGS_ALL) -o $@ $^
endif
