# backboned_version: the client's, which is the only place where the version stands.

set(version_file "${CMAKE_CURRENT_SOURCE_DIR}/client/python/src/backboned/version.py")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${version_file}")
file(STRINGS "${version_file}" backboned_version REGEX "^__version__ = ")
string(REGEX REPLACE ".*\"(.*)\".*" "\\1" backboned_version "${backboned_version}")
