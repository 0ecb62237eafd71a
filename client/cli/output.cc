#include "client/cli/output.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace backboned::cli {
namespace {

// Three digits, or four before a unit: `9.99`, `12.3`, `999`.
std::string FormatScaled(double value, double step,
                         const std::vector<const char*>& units) {
  size_t unit = 0;
  while (value >= step && unit + 1 < units.size()) {
    value /= step;
    ++unit;
  }
  const bool has_digit = unit > 0 && value < 100;
  return absl::StrFormat("%.*f%s", has_digit ? 1 : 0, value, units[unit]);
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
  for (const Column& column : columns_) widths_.push_back(column.name.size());
}

void Table::Add(std::vector<std::string> cells) {
  for (size_t i = 0; i < cells.size(); ++i) {
    std::string& cell = cells[i];
    if (cell.empty()) cell = "-";
    std::replace_if(
        cell.begin(), cell.end(),
        [](char c) { return absl::ascii_iscntrl(static_cast<uint8_t>(c)); },
        '?');
    widths_[i] = std::max(widths_[i], cell.size());
  }
  rows_.push_back(std::move(cells));
}

std::string Table::Format(bool is_bold) const {
  const auto line = [this](const auto& cell_of) {
    std::string text;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const int width = static_cast<int>(widths_[i]);
      absl::StrAppendFormat(&text, "%s%*s", i > 0 ? "  " : "",
                            columns_[i].is_number ? width : -width, cell_of(i));
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  };
  std::string heading = line([this](size_t i) { return columns_[i].name; });
  std::string lines = is_bold ? absl::StrCat("\x1b[1m", heading, "\x1b[0m\n")
                              : absl::StrCat(heading, "\n");
  for (const std::vector<std::string>& row : rows_) {
    absl::StrAppend(&lines, line([&row](size_t i) { return row[i]; }), "\n");
  }
  return lines;
}

bool HasColours() {
  const auto variable = [](const char* name) -> std::string_view {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  return isatty(STDOUT_FILENO) != 0 && variable("NO_COLOR").empty() &&
         variable("TERM") != "dumb";
}

void Print(const Table& table) { std::cout << table.Format(HasColours()); }

std::string JsonOf(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  // Fails for an Any of an unknown type only; the contract's answers have none.
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}\n";
}

void PrintJson(const google::protobuf::Message& message) {
  std::cout << JsonOf(message);
}

std::string FormatBytes(int64_t bytes) {
  return FormatScaled(static_cast<double>(bytes), 1000,
                      {" B", " kB", " MB", " GB", " TB"});
}

std::string FormatCount(int64_t count) {
  if (count < 100'000) return absl::StrCat(count);
  return FormatScaled(static_cast<double>(count), 1000, {"", " k", " M", " G"});
}

std::string FormatAge(absl::Duration age) {
  struct Unit {
    absl::Duration length;
    const char* name;
  };
  const auto units = std::to_array<Unit>({{absl::Hours(24), "d"},
                                          {absl::Hours(1), "h"},
                                          {absl::Minutes(1), "min"},
                                          {absl::Seconds(1), "s"}});
  for (const Unit& unit : units) {
    if (age >= 2 * unit.length) {
      return absl::StrCat(age / unit.length, " ", unit.name);
    }
  }
  return absl::StrCat(std::max<int64_t>(0, absl::ToInt64Seconds(age)), " s");
}

}  // namespace backboned::cli
