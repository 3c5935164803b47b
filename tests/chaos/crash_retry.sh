#!/bin/bash
# A part of crash_each_write.sh: who takes over a kept copy, or a kept source, is killed at each write of its journal.
WAY=retry bash "$(dirname "$0")/crash_each_write.sh" "$1" destination-leg destination || failed=1
WAY=undo bash "$(dirname "$0")/crash_each_write.sh" "$1" destination-leg || failed=1
exit ${failed:-0}
