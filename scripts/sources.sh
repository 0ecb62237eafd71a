# shellcheck shell=bash
# Sourced by check and fix: which files are ours, and what is generated from them.

# sources PATTERN...: our files, tracked or new, as git names them.
sources() {
  git ls-files --cached --others --exclude-standard --deduplicate -- "$@" |
    while read -r file; do
      [[ ! -f $file ]] || echo "$file"
    done
}

cpp_sources() { sources '*.cc' '*.h'; }

python_sources() { sources '*.py' | grep -v '_pb2\.py$' || true; }

shell_sources() {
  sources scripts .ci deploy docs | while read -r file; do
    if [[ $file == *.sh ]] || head -n 1 "$file" | grep -q '^#!.*sh$'; then
      echo "$file"
    fi
  done
}

# generate_python FOLDER: writes the contract's Python modules under a folder.
generate_python() {
  protoc --proto_path=proto --python_out="$1" --pyi_out="$1" proto/backboned/v1/*.proto
}
