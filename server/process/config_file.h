// Reads options from a file.

#ifndef BACKBONED_SERVER_PROCESS_CONFIG_FILE_H_
#define BACKBONED_SERVER_PROCESS_CONFIG_FILE_H_

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <istream>
#include <map>
#include <string>
#include <vector>

namespace backboned {

// Lets CLI11 read a YAML file whose keys are the options of `app` without their
// dashes. A value is a scalar, a list, or a mapping, whose items are
// `KEY=VALUE`. The command line wins over the environment, and that over the
// file.
class ConfigFile final : public CLI::Config {
 public:
  // `app` must outlive this object.
  explicit ConfigFile(const CLI::App& app) : app_(app) {}

  // Returns the options that the file alone gives. Throws CLI::ParseError, with
  // the line, if `input` is no such file.
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;

  // Returns the message of an error about an option: with the line, if it is
  // one of those.
  std::string Explain(const std::string& message) const;

  // Returns the texts of options, by their keys, in the form of such a file.
  static std::string YamlOf(
      const std::map<std::string, std::vector<std::string>>& texts);

  // Writes no files.
  std::string to_config(const CLI::App*, bool, bool,
                        std::string) const override {
    return "";
  }

 private:
  const CLI::App& app_;
  mutable std::map<std::string, int> lines_;  // By option, from 1.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_CONFIG_FILE_H_
