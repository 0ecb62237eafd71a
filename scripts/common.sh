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

# Prints where buf is: on the PATH, or where go install puts it.
find_buf() {
  command -v buf || PATH="$(go env GOPATH 2>/dev/null || echo "$HOME/go")/bin" command -v buf
}

# step TEXT COMMAND...: runs a command quietly; one line says what and how long.
step() {
  local text=$1 start=$SECONDS log job
  shift
  log=$(mktemp)
  "$@" >"$log" 2>&1 &
  job=$!
  [[ -t 1 ]] || echo "$name: $text ..."
  while [[ -t 1 ]] && kill -0 "$job" 2>/dev/null; do
    printf '\r%s: %s ... %d s' "$name" "$text" $((SECONDS - start))
    sleep 0.2
  done
  if ! wait "$job"; then
    echo
    tail -n 40 "$log" >&2
    die "$text failed; the whole log is in $log"
  fi
  rm -f "$log"
  [[ -t 1 ]] && printf '\r\033[K'
  echo "$name: $text: $((SECONDS - start)) s"
}
