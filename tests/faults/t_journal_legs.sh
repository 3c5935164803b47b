#!/bin/bash
# A part of journal_fails.sh, so that the parts can run beside each other.
exec bash "$(dirname "$0")/journal_fails.sh" "$1" source-leg:full:1 source-leg:full:3 source-leg:full:4 source-leg:full:5 \
	source-leg:sync:6 destination-leg:full:3 destination-leg:full:7 destination-leg:full:8 destination-leg:io:9
