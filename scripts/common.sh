# shellcheck shell=bash
# Sourced by the scripts: strict mode, the repository's root, messages.

set -euo pipefail
script=$(realpath "$0")
name=${script##*/} # What messages start with.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  echo "$name: $*" >&2
  exit 1
}

# Prints the comment at the top of the calling script.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$script"
  exit 0
}

# Handles the arguments of a script that takes none but --help.
no_arguments() {
  case ${1-} in
    '') ;;
    -h | --help) usage ;;
    *) die "unknown argument '$1'; see $name --help" ;;
  esac
}

# The version, which stands there alone.
version_file=client/python/src/backboned/version.py
version() { sed -n 's/^__version__ = "\(.*\)"/\1/p' "$version_file"; }

# find_engine: sets what builds and runs images, and the further options of its build, by
# the variables that container-test tells of.
find_engine() {
  local default=docker
  command -v docker >/dev/null || default=podman
  read -ra engine <<<"${CONTAINER_ENGINE:-$default}"
  read -ra build_args <<<"${CONTAINER_BUILD_ARGS-}"
  [[ ${engine[0]##*/} != podman ]] || build_args+=(--format docker) # Keeps HEALTHCHECK.
}

# compilers: prints how many compilers run at once: one a processor, as far as they fit
# into memory, of which one takes up to 2 GB (cmake/Targets.cmake).
compilers() {
  local fit
  fit=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) >> 21))
  ((fit > 1)) || fit=1
  echo $((fit < $(nproc) ? fit : $(nproc)))
}

# share SECONDS: how long so many processor seconds take this machine.
share() { echo $((($1 + $(nproc) - 1) / $(nproc))); }

# Prints a duration: 45 s, 2 min.
duration() {
  if (($1 < 90)); then echo "$1 s"; else echo "$((($1 + 30) / 60)) min"; fi
}

# draw TEXT SECONDS EXPECTED: a bar in the terminal's line.
draw() {
  local percent=$((100 * $2 / $3)) bar
  ((percent < 99)) || percent=99
  bar=$(printf '%*s' $((percent / 5)) '' | tr ' ' '#')
  printf '\r\033[K%s: %s [%-20s] %s of about %s' \
    "$name" "$1" "$bar" "$(duration "$2")" "$(duration "$3")"
}

# attempt TEXT SECONDS COMMAND...: runs a command quietly; one line says what, about how
# long it takes, and how long it took. Leaves what it said in the file $log.
attempt() {
  local text=$1 expected=$2 start=$SECONDS job
  shift 2
  log=$(mktemp)
  # A job in the background would ignore Ctrl-C.
  (trap - INT && "$@") >"$log" 2>&1 </dev/null &
  job=$!
  [[ -t 1 ]] || echo "$name: $text, about $(duration "$expected") ..."
  while [[ -t 1 ]] && kill -0 "$job" 2>/dev/null; do
    draw "$text" $((SECONDS - start)) "$expected"
    sleep 0.2
  done
  [[ ! -t 1 ]] || printf '\r\033[K'
  wait "$job" || return
  rm -f "$log"
  echo "$name: $text: $(duration $((SECONDS - start)))"
}

# step TEXT SECONDS COMMAND...: attempts, and ends the script if that fails.
step() {
  local cause
  attempt "$@" && return
  cause=$(cause_of "$log")
  [[ -n $cause ]] || tail -n 40 "$log" >&2
  die "$1 failed${cause:+: $cause}; the whole log is in $log"
}

# cause_of LOG: what is wrong with the machine, and what to do; nothing if the log does
# not tell.
cause_of() {
  local proxy=${https_proxy-${HTTPS_PROXY-${ALL_PROXY-${http_proxy-}}}}
  if grep -q 'No space left on device' "$1"; then
    echo "the disk is full: make room, and run this again"
  elif grep -q 'Killed signal terminated program' "$1"; then
    echo "there is too little memory: set CMAKE_BUILD_PARALLEL_LEVEL=1, and run this again"
  elif grep -qi 'certificate verify failed' "$1"; then
    echo "the network's certificate is of an authority that this machine does not know:" \
      "set PIP_CERT to a file with the authority's certificate, and run this again"
  elif ! grep -qiE "$no_network" "$1"; then
    :
  elif [[ -n $proxy ]]; then
    # Without the user and the password that may stand in it.
    echo "no connection through the proxy ${proxy##*@}: mend or unset https_proxy and" \
      "http_proxy, and run this again"
  else
    echo "no connection: this machine needs the network once; behind a proxy set" \
      "https_proxy=http://HOST:PORT, and run this again"
  fi
}

# What apt, pip and uv say.
no_network='temporary failure (in name resolution|resolving)|could not resolve|dns error'
no_network+='|failed to establish a new connection|network is unreachable|no route to host'
no_network+='|could not connect|connection (refused|timed out|reset)|cannot connect to proxy'
no_network+='|tunnel (connection|error)|proxyerror'
