#!/bin/bash
# A part of journal_fails.sh, so that the parts can run beside each other.
exec bash "$(dirname "$0")/journal_fails.sh" "$1" coordinator:full:1 coordinator:full:4 coordinator:io:9 coordinator:sync:6 \
	source:full:2 source:full:6 source:sync:4 destination:full:4 destination:io:6
