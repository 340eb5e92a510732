#!/bin/sh
# Brings in the debs that `nsferry debs stage` has put into $NSFERRY_STAGE, so that apt downloads none of them.
# mmdebstrap calls this as root of its namespace, with the new root directory as $1. A failure ends its run.
set -eu
: "${NSFERRY_STAGE:?is not set; run nsferry debs stage DL DIR and set it to DIR}"
exec "${NSFERRY:-nsferry}" debs import --archives-mode=0755 "$NSFERRY_STAGE/var/cache/apt/archives" "$1"
