#!/bin/sh
# Make /opt/peacemaker: a virtual environment with the packages that /tools/$1.txt locks, without
# what $1 (agent or operator) never imports.
set -eu
side=$1
venv=/opt/peacemaker
pip="/tools/venv/bin/pip --python $venv/bin/python"

python3.11 -m venv --without-pip $venv
$pip install --no-compile --require-hashes --only-binary :all: -r "/tools/$side.txt"

cd $venv/lib/python3.11/site-packages
rm -r kubernetes/aio      # the client once more, for asyncio
rm -r cel_expr_python/ext # functions that CEL does not have of itself: policies are checked without
# Of the client both sides use connections and credentials, and speak in plain documents; the
# operator also has the Lease of its leader from it.
find kubernetes/client/api -name '*_api.py' -not -name 'coordination_v1_api.py' -delete
if [ "$side" = agent ]; then
  find kubernetes/client/api kubernetes/client/models -name '*.py' -not -name __init__.py -delete
  # Only the client for asyncio uses these. (The operator's frame does, too.)
  $pip uninstall --yes aiohappyeyeballs aiohttp aiohttp-retry aiosignal attrs frozenlist \
    multidict propcache yarl
fi
find . '(' -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' ')' -delete
find $venv/bin -type f -delete # packages' own commands, and what shells read to activate it

python3.11 -m compileall -q -j 0 --invalidation-mode unchecked-hash $venv/lib
