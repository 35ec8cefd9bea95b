#!/bin/sh
# Make sure that there is the proxy that JupyterHub starts: what proxy/package-lock.json pins, fetched with npm into _build/tools/
# and compared with its hashes. It is somebody else's code under another licence, so it is no part of the repository.
set -u
cd "$(dirname "$0")/../.." || exit 1
lock=tests/hub/proxy/package-lock.json
target=_build/tools/hub-proxy
[ -f "$target/done" ] && cmp -s "$lock" "$target/package-lock.json" && exit 0
give_up() {
  cat >&2 <<WORDS
************************************************************************
  JupyterHub has no proxy to start: $1.
  The tests of the hub cannot run.
  Install npm with Node.js 18 or newer (Debian: apt install npm) and
  run \`make hub\`.
************************************************************************
WORDS
  exit 1
}
command -v npm >/dev/null 2>&1 || give_up "npm was not found"
rm -rf "$target" && mkdir -p "$target" && cp tests/hub/proxy/package.json "$lock" "$target/" || give_up "$target cannot be written"
(cd "$target" && npm ci --silent --no-audit --no-fund --ignore-scripts) || give_up "npm could not fetch what $lock pins"
touch "$target/done"
