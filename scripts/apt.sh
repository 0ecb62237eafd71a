# shellcheck shell=bash
# Sourced by try-wheel, cross-arm64 and nightly: packages of another Debian than this machine's.

# The one that this machine's packages come from.
# shellcheck disable=SC2016 # apt fills it in.
own_mirror() {
  apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' |
    sed -n 1p
}

# other_apt STATE RELEASE ARCHITECTURE ARGUMENT...: apt-get of a Debian that has nothing
# installed, with its files in the folder STATE.
other_apt() {
  local state=$1 release=$2 architecture=$3
  shift 3
  mkdir -p "$state/lists/partial" "$state/archives/partial"
  : >"$state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
    "${DEBIAN_MIRROR:-$(own_mirror)} $release main" >"$state/sources.list"
  apt-get -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status" \
    -o "Dir::Cache=$state" -o APT::Sandbox::User= \
    -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" "$@"
}
