// Records who was refused, and changes of what callers may do.

#ifndef BACKBONED_SERVER_CALLERS_AUDIT_H_
#define BACKBONED_SERVER_CALLERS_AUDIT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace backboned {

// Opens the file that the records are added to, one line of JSON each. Until
// then they are lines of the log, behind the word `audit`. Returns
// kFailedPrecondition if it cannot be written.
absl::Status OpenAuditFile(const std::string& path);

// Adds a record: the fields of `record`, an object without secrets, behind the
// time. Thread-safe.
void Audit(const nlohmann::ordered_json& record);

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_AUDIT_H_
