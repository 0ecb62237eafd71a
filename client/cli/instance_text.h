// Describes instances to people.

#ifndef BACKBONED_CLIENT_CLI_INSTANCE_TEXT_H_
#define BACKBONED_CLIENT_CLI_INSTANCE_TEXT_H_

#include <google/protobuf/timestamp.pb.h>

#include <string>

#include "absl/time/time.h"
#include "backboned/v1/instance.pb.h"

namespace backboned::cli {

// Returns `seq-mnist`, or `resnet18(num_classes=10, num_filters=64)`.
std::string FormatNetwork(const v1::Instance& instance);

// Returns `float32`; the number of a type that this program does not know.
std::string FormatDtype(v1::DataType dtype);

// Returns the versions of parameters and buffers, `12.3`; `12` if the buffers'
// is 1.
std::string FormatVersion(const v1::Version& version);

// Returns what is special of an instance, `read-only,shared`; or nothing.
std::string FormatFlags(const v1::Instance& instance);

// Returns the time since its last use; nothing if an older server does not
// tell.
std::string FormatIdle(const v1::Instance& instance);

// Returns a bare name for the caller's own, `owner/name` otherwise.
std::string FormatName(const std::string& principal,
                       const v1::Instance& instance);

absl::Time TimeOf(const google::protobuf::Timestamp& time);

// Returns all that is known, a line each.
std::string Describe(const v1::Instance& instance);

// Returns a table of parameters and buffers.
std::string DescribeLayout(const v1::Layout& layout);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_INSTANCE_TEXT_H_
