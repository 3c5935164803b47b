#!/bin/bash
# A part of crash_each_write.sh, so that the parts can run beside each other.
STRIDE=${STRIDE:-1} exec bash "$(dirname "$0")/crash_each_write.sh" "$1" source destination
