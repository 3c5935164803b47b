# Installing. DESTDIR and prefix as usual; sysconfdir is /etc whatever the prefix, since that is where the programs look.
bindir ?= $(prefix)/bin
sbindir ?= $(prefix)/sbin
mandir ?= $(prefix)/share/man
completiondir ?= $(prefix)/share/bash-completion/completions
sysconfdir ?= /etc
unitdir ?= $(prefix)/lib/systemd/system
sysusersdir ?= $(prefix)/lib/sysusers.d
tmpfilesdir ?= $(prefix)/lib/tmpfiles.d

# The programs look for each other beside themselves: all but drover go to sbin, and drover-sim gets a link in bin.
SBIN_PROGRAMS := $(filter-out drover,$(PROGRAMS))
BIN_LINKS := $(filter drover-sim,$(PROGRAMS))
BIN_PROGRAMS := $(filter-out $(SBIN_PROGRAMS),$(PROGRAMS))
MAN_SOURCES := $(wildcard docs/man/*.scd)
MAN_PAGES := $(MAN_SOURCES:docs/man/%.scd=$(B)/man/%)
SAMPLES := $(wildcard deploy/etc/*.conf)
MAN_SECTION = $(subst .,,$(suffix $(1)))

## man: the manual pages, from docs/man/*.scd
.PHONY: man
man: $(MAN_PAGES)
$(B)/man/%: docs/man/%.scd
	$(call say,SCDOC,$<)
	$(Q)mkdir -p $(dir $@) && scdoc <$< >$@.tmp && mv $@.tmp $@

## install: programs, manual pages, services, completion, sample configurations (DESTDIR=, prefix=)
.PHONY: install
install: all man
	$(Q)install -d $(DESTDIR)$(bindir) $(DESTDIR)$(sbindir) $(DESTDIR)$(completiondir) $(DESTDIR)$(unitdir) \
		$(DESTDIR)$(sysusersdir) $(DESTDIR)$(tmpfilesdir) $(DESTDIR)$(sysconfdir)/drover
	$(Q)$(foreach p,$(BIN_PROGRAMS),install -m 755 $(B)/bin/$(p) $(DESTDIR)$(bindir) &&) :
	$(Q)$(foreach p,$(SBIN_PROGRAMS),install -m 755 $(B)/bin/$(p) $(DESTDIR)$(sbindir) &&) :
	$(Q)install -m 755 $(B)/bin/drover-power.so $(DESTDIR)$(sbindir)
	$(Q)$(foreach p,$(BIN_LINKS),ln -sfr $(DESTDIR)$(sbindir)/$(p) $(DESTDIR)$(bindir)/$(p) &&) :
	$(Q)$(foreach p,$(MAN_PAGES),install -D -m 644 $(p) $(DESTDIR)$(mandir)/man$(call MAN_SECTION,$(p))/$(notdir $(p)) &&) :
	$(Q)install -m 644 deploy/bash-completion/* $(DESTDIR)$(completiondir)
	$(Q)$(foreach u,$(wildcard deploy/systemd/*.service),sed 's|@sbindir@|$(sbindir)|' $(u) \
		>$(DESTDIR)$(unitdir)/$(notdir $(u)) && chmod 644 $(DESTDIR)$(unitdir)/$(notdir $(u)) &&) :
	$(Q)install -m 644 deploy/sysusers/drover.conf $(DESTDIR)$(sysusersdir)/drover.conf
	$(Q)install -m 644 deploy/tmpfiles/drover.conf $(DESTDIR)$(tmpfilesdir)/drover.conf
	$(Q)$(foreach c,$(SAMPLES),install -m 644 $(c) $(DESTDIR)$(sysconfdir)/drover/$(notdir $(c)).sample &&) :
	$(call say,INSTALL,$(DESTDIR)$(prefix))

## uninstall: what install has put there; configuration, keys and databases stay
.PHONY: uninstall
uninstall:
	$(Q)rm -f $(patsubst %,$(DESTDIR)$(bindir)/%,$(BIN_PROGRAMS) $(BIN_LINKS)) $(SBIN_PROGRAMS:%=$(DESTDIR)$(sbindir)/%) \
		$(DESTDIR)$(sbindir)/drover-power.so \
		$(foreach p,$(MAN_PAGES),$(DESTDIR)$(mandir)/man$(call MAN_SECTION,$(p))/$(notdir $(p))) \
		$(patsubst deploy/bash-completion/%,$(DESTDIR)$(completiondir)/%,$(wildcard deploy/bash-completion/*)) \
		$(patsubst deploy/systemd/%,$(DESTDIR)$(unitdir)/%,$(wildcard deploy/systemd/*.service)) \
		$(DESTDIR)$(sysusersdir)/drover.conf $(DESTDIR)$(tmpfilesdir)/drover.conf \
		$(SAMPLES:deploy/etc/%=$(DESTDIR)$(sysconfdir)/drover/%.sample)
