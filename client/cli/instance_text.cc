#include "client/cli/instance_text.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/errors.h"
#include "client/cli/output.h"

namespace backboned::cli {
namespace {

std::string FormatArgument(const v1::ArgumentValue& value) {
  switch (value.kind_case()) {
    case v1::ArgumentValue::kIntValue:
      return absl::StrCat(value.int_value());
    case v1::ArgumentValue::kDoubleValue:
      return absl::StrCat(value.double_value());
    case v1::ArgumentValue::kBoolValue:
      return value.bool_value() ? "true" : "false";
    default:
      return value.string_value();
  }
}

// Returns the last word of an enum's value, in small letters.
std::string Word(const std::string& value, const std::string& prefix) {
  return absl::AsciiStrToLower(
      absl::StartsWith(value, prefix) ? value.substr(prefix.size()) : value);
}

std::string Shape(const google::protobuf::RepeatedField<int64_t>& shape) {
  return FormatShape(std::vector<int64_t>(shape.begin(), shape.end()));
}

std::string FormatCounters(const v1::InstanceCounters& counters) {
  return absl::StrFormat("%d forwards, %d backwards, %d writes, %d steps",
                         counters.forwards(), counters.backwards(),
                         counters.writes(), counters.steps());
}

std::string FormatCache(const v1::Instance& instance) {
  const v1::FeatureCache& cache = instance.feature_cache();
  const int64_t room = instance.settings().feature_cache_bytes();
  if (room == 0) return "";
  return absl::StrFormat("%s of %s, %d answers, %d hits, %d misses",
                         FormatBytes(cache.bytes()), FormatBytes(room),
                         cache.entries(), cache.hits(), cache.misses());
}

std::string FormatOptimizer(const v1::Instance& instance) {
  if (!instance.has_optimizer()) return "";
  return Word(v1::OptimizerKind_Name(instance.optimizer().kind()),
              "OPTIMIZER_KIND_");
}

std::string FormatPrecision(const v1::Instance& instance) {
  if (instance.precision() == v1::PRECISION_UNSPECIFIED) return "";
  return Word(v1::Precision_Name(instance.precision()), "PRECISION_");
}

std::string FormatMemory(const v1::Instance& instance) {
  std::string text = FormatBytes(instance.memory_bytes());
  if (instance.shared_bytes() > 0) {
    absl::StrAppend(&text, ", of which ", FormatBytes(instance.shared_bytes()),
                    " are another instance's too");
  }
  return text;
}

std::string FormatTapes(const v1::Instance& instance) {
  if (instance.tape_count() == 0) return "";
  return absl::StrCat(instance.tape_count(), ", ",
                      FormatBytes(instance.tape_bytes()));
}

}  // namespace

std::string FormatNetwork(const v1::Instance& instance) {
  if (!instance.benchmark().empty()) return instance.benchmark();
  std::map<std::string, std::string> arguments;
  for (const auto& [name, value] : instance.arguments()) {
    arguments[name] = FormatArgument(value);
  }
  return absl::StrCat(instance.architecture(), "(",
                      absl::StrJoin(arguments, ", ", absl::PairFormatter("=")),
                      ")");
}

std::string FormatDtype(v1::DataType dtype) {
  if (!v1::DataType_IsValid(dtype)) return absl::StrCat(int{dtype});
  return Word(v1::DataType_Name(dtype), "DATA_TYPE_");
}

std::string FormatVersion(const v1::Version& version) {
  return version.buffers() > 1
             ? absl::StrCat(version.params(), ".", version.buffers())
             : absl::StrCat(version.params());
}

std::string FormatFlags(const v1::Instance& instance) {
  std::vector<std::string> flags;
  if (instance.settings().read_only()) flags.emplace_back("read-only");
  if (instance.settings().shared()) flags.emplace_back("shared");
  if (instance.settings().frozen_size() > 0) flags.emplace_back("frozen");
  if (instance.ephemeral()) flags.emplace_back("unnamed");
  if (instance.asleep()) flags.emplace_back("asleep");
  return absl::StrJoin(flags, ",");
}

std::string FormatIdle(const v1::Instance& instance) {
  if (!instance.has_idle()) return "";
  return FormatAge(absl::Seconds(instance.idle().seconds()));
}

std::string FormatName(const std::string& principal,
                       const v1::Instance& instance) {
  return instance.owner() == principal
             ? instance.name()
             : absl::StrCat(instance.owner(), "/", instance.name());
}

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) +
         absl::Nanoseconds(time.nanos());
}

std::string Describe(const v1::Instance& instance) {
  const v1::Layout& layout = instance.layout();
  const std::vector<std::pair<std::string, std::string>> facts = {
      {"name", instance.name()},
      {"owner", instance.owner()},
      {"benchmark", instance.benchmark()},
      {"architecture",
       [&instance] {
         v1::Instance bare = instance;
         bare.clear_benchmark();
         return FormatNetwork(bare);
       }()},
      {"columns", absl::StrJoin(instance.columns(), ", ")},
      {"device", instance.device()},
      {"dtype", FormatDtype(instance.dtype())},
      {"precision", FormatPrecision(instance)},
      {"parameters", absl::StrCat(layout.parameter_elements(), " in ",
                                  layout.parameters_size(), " tensors")},
      {"buffers", absl::StrCat(layout.buffers_size(), " tensors")},
      {"input",
       layout.input_shape_size() > 0 ? Shape(layout.input_shape()) : "any"},
      {"outputs", absl::StrJoin(layout.outputs(), ", ")},
      {"version", absl::StrCat("parameters ", instance.version().params(),
                               ", buffers ", instance.version().buffers())},
      {"uid", instance.version().uid()},
      {"made",
       absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", TimeOf(instance.create_time()),
                        absl::UTCTimeZone())},
      {"weights", instance.weights()},
      {"idle", FormatIdle(instance)},
      {"flags", FormatFlags(instance)},
      {"frozen", absl::StrJoin(instance.settings().frozen(), ", ")},
      {"optimizer", FormatOptimizer(instance)},
      {"memory", FormatMemory(instance)},
      {"tapes", FormatTapes(instance)},
      {"feature cache", FormatCache(instance)},
      {"did", FormatCounters(instance.counters())},
      {"digest", instance.digest()},
  };
  std::string lines;
  for (const auto& [name, value] : facts) {
    if (value.empty()) continue;
    absl::StrAppendFormat(&lines, "%-14s %s\n", name, value);
  }
  return lines;
}

std::string DescribeLayout(const v1::Layout& layout) {
  Table table({{"KIND"}, {"NAME"}, {"SHAPE"}, {"OFFSET", true}, {"ALSO"}});
  for (const v1::Parameter& parameter : layout.parameters()) {
    table.Add({"parameter", parameter.name(), Shape(parameter.shape()),
               absl::StrCat(parameter.offset()),
               absl::StrJoin(parameter.aliases(), ", ")});
  }
  for (const v1::Buffer& buffer : layout.buffers()) {
    table.Add({"buffer", buffer.name(), Shape(buffer.shape()), "", ""});
  }
  return table.Format(HasColours());
}

}  // namespace backboned::cli
