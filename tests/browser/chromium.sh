#!/bin/sh
# Make sure that there is a Chromium for the browser tests: use one that is installed; install Debian's package where that
# is allowed (root on Debian or Ubuntu); otherwise say loudly that the tests will be skipped (or fail, when
# SCPRIMER_REQUIRE_BROWSER=1).
set -u
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "no Chromium here: installing the package chromium"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null && exit 0
  echo "the package chromium could not be installed" >&2
fi
cat >&2 <<'WORDS'
************************************************************************
  No Chromium or Chrome was found: the browser tests are SKIPPED.
  The pages were built, and nobody has looked at them.
  Install one (Debian: apt install chromium) and run `make browser`.
************************************************************************
WORDS
[ "${SCPRIMER_REQUIRE_BROWSER:-0}" = 1 ] && exit 1
exit 0
