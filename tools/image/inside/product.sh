#!/bin/sh
# Put the product into /opt/peacemaker with the command of $1 (agent or operator), make the bill of
# materials of what is there then, and lay both out in /image.
set -eu
side=$1
venv=/opt/peacemaker
doc=/image/usr/share/doc/peacemaker

/tools/venv/bin/pip --python $venv/bin/python install --no-compile --no-deps --no-index \
  /product/wheel/*.whl
find $venv/bin -type f -not -name "peacemaker-$side" -delete
rm -r $venv/lib/systemd # the agent's unit, for hosts without a cluster
python3.11 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  $venv/lib/python3.11/site-packages/peacemaker*

mkdir -p $doc /image/opt
cp /product/source/LICENSE $doc/copyright
/tools/venv/bin/cyclonedx-py environment --pyproject /product/source/pyproject.toml \
  --mc-type application --output-reproducible --output-file /tools/python.cdx.json $venv/bin/python
/tools/venv/bin/python /product/source/tools/image/inside/sbom.py \
  /tools/python.cdx.json /product/debian >$doc/sbom.cdx.json
mv $venv /image/opt/
