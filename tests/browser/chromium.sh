#!/bin/sh
# Make sure that the browser tests have a Chromium: use an installed one; as root on Debian or Ubuntu install theirs; otherwise say so loudly.
for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing Chromium for the browser tests"
    apt-get update -qq && apt-get install -y -qq chromium >/dev/null && exit 0
fi
cat <<'TEXT'
********************************************************************************
  NO CHROMIUM OR CHROME FOUND: the browser tests are SKIPPED on this machine.
  The rest of the book is tested. To run them too, install Chromium and repeat.
********************************************************************************
TEXT
test -z "${SCPRIMER_REQUIRE_BROWSER:-}"
