#!/bin/sh
# Puts the debs that apt has downloaded until now, checked against its lists, into $NSFERRY_STAGE, with the lists, for
# `nsferry debs unstage` to take them from there. mmdebstrap removes them in the course of its work, so that this is
# done at each of its stages.
set -eu
: "${NSFERRY_STAGE:?is not set; run nsferry debs stage DL DIR and set it to DIR}"
"${NSFERRY:-nsferry}" debs export --keep-mode "$1" "$NSFERRY_STAGE/var/cache/apt/archives"
lists=$NSFERRY_STAGE/var/lib/apt/lists
mkdir -p "$lists"
for list in "$1"/var/lib/apt/lists/*_Packages*; do
    if [ -f "$list" ] && [ ! -e "$lists/${list##*/}" ]; then cp "$list" "$lists"; fi
done
