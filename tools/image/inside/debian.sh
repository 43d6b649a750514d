#!/bin/sh
# Make $1: a file system with Debian's Python and the libraries it needs, and no more.
#
# The packages are unpacked, not installed: none of their scripts runs, so no shell is needed there.
# Each leaves its control file in var/lib/dpkg/status.d, where scanners of such images look.
set -eu
tree=$1

# Python's extension modules for libraries that are not in this list are taken out below.
packages="
  base-files
  gcc-12-base
  libbz2-1.0
  libc6
  libexpat1
  libffi8
  libgcc-s1
  liblzma5
  libpython3.11-minimal
  libpython3.11-stdlib
  libssl3
  libstdc++6
  libuuid1
  python3.11-minimal
  zlib1g
"

debs=$(mktemp -d)
cd "$debs"
# shellcheck disable=SC2086 # a list of words
apt-get -o APT::Sandbox::User=root download $packages
mkdir -p "$tree/var/lib/dpkg/status.d"
for deb in *.deb; do
  dpkg-deb --extract "$deb" "$tree"
  dpkg-deb --field "$deb" >"$tree/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)"
done
rm -r "$debs"

cd "$tree"
cat >etc/passwd <<END
root:x:0:0:root:/root:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
peacemaker:x:65532:65532:peacemaker:/nonexistent:/usr/sbin/nologin
END
cat >etc/group <<END
root:x:0:
nogroup:x:65534:
peacemaker:x:65532:
END
echo 'hosts: files dns' >etc/nsswitch.conf

# Of the documentation only the licences stay.
find usr/share/doc -not -type d -not -name copyright -not -type l -delete
rm -r usr/share/gcc usr/share/gdb usr/share/lintian usr/share/man
rm -r usr/lib/*/gconv # character sets of C programs: Python brings its own
rm -r usr/lib/python3.11/pydoc_data
cd usr/lib/python3.11/lib-dynload
rm _crypt.* _curses.* _curses_panel.* _dbm.* _sqlite3.* nis.* readline.*

# Once and for all: unchecked, as nobody can change a source of a read-only file system.
python3.11 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  -s "$tree" -p / "$tree/usr/lib/python3.11"
