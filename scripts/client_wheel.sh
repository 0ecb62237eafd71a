# shellcheck shell=bash
# client_wheel LIBRARY MACHINE LICENSES AUDITWHEEL_OPTION...: makes a wheel of the client.
#
# It is client/python with the library that makes its calls, for Linux on MACHINE, in
# dist/. LICENSES is a folder with those of the libraries that LIBRARY brings along. Needs
# the packages of requirements/wheel.txt on the PATH; scripts/wheel installs them.
client_wheel() {
  local library=$1 machine=$2 licenses=$3 made
  shift 3
  made=build/wheel/client-$machine
  rm -rf "$made" dist/backboned-*"_$machine.whl" && mkdir -p build/wheel dist &&
    cp -r client/python "$made" &&
    cp "$library" "$made/src/backboned/transport" &&
    cp -r "$licenses" "$made/licenses" &&
    printf '[metadata]\nlicense_files = licenses/**\n' >"$made/setup.cfg" &&
    python -m pip wheel --no-build-isolation --no-deps -w "$made" \
      "--config-settings=--build-option=--plat-name=linux_$machine" "$made" &&
    auditwheel repair "$@" -w dist "$made"/backboned-*.whl
}
