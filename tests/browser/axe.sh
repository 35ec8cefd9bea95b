#!/bin/sh
# Make sure that there is axe-core for the accessibility tests: the version below, fetched with npm and compared with its hash.
# It is 650 kB of somebody else's code under another licence, so it is no part of the repository. Without npm the tests say
# loudly that they are skipped (or fail, when SCPRIMER_REQUIRE_BROWSER=1).
set -u
VERSION=4.14.1
SHA256=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
cd "$(dirname "$0")/../.." || exit 1
target=_build/tools/axe-core-$VERSION
[ -f "$target/axe.min.js" ] && exit 0
words="npm was not found"
if command -v npm >/dev/null 2>&1; then
  folder=$(mktemp -d) || exit 1
  trap 'rm -rf "$folder"' EXIT
  if (cd "$folder" && npm pack --silent "axe-core@$VERSION" >/dev/null && tar -xzf "axe-core-$VERSION.tgz" package/axe.min.js); then
    if echo "$SHA256  $folder/package/axe.min.js" | sha256sum -c --quiet - >/dev/null 2>&1; then
      mkdir -p "$target" && mv "$folder/package/axe.min.js" "$target/axe.min.js" && exit 0
      words="it could not be stored in $target"
    else
      words="what npm fetched is not the file that was reviewed"
    fi
  else
    words="npm could not fetch it"
  fi
fi
cat >&2 <<WORDS
************************************************************************
  No axe-core $VERSION: $words.
  The accessibility tests are SKIPPED.
  Install npm (Debian: apt install npm) and run \`make browser\`.
************************************************************************
WORDS
[ "${SCPRIMER_REQUIRE_BROWSER:-0}" = 1 ] && exit 1
exit 0
