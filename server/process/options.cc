#include "server/process/options.h"

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/names.h"
#include "server/device/platform.h"
#include "server/process/config_file.h"
#include "server/process/environment.h"

namespace backboned {
namespace {

// Returns BACKBONED_MAX_TAPES for `--max-tapes`.
std::string EnvironmentName(const std::string& option) {
  return absl::StrCat("BACKBONED_", absl::AsciiStrToUpper(absl::StrReplaceAll(
                                        option.substr(2), {{"-", "_"}})));
}

// Makes a check that refuses texts unless `accepts`: "TEXT is not a KIND".
template <typename Accepts>
CLI::Validator MakeValidator(const std::string& kind, Accepts accepts) {
  const auto check = [kind, accepts](const std::string& text) {
    return accepts(text) ? std::string()
                         : absl::StrCat(Quote(text), " is not a ", kind);
  };
  return CLI::Validator(check, "", kind);
}

bool ReadDuration(const std::string& text, absl::Duration& value) {
  return absl::ParseDuration(text, &value) && value > absl::ZeroDuration();
}

// Adds options that are also environment variables.
class Adder {
 public:
  explicit Adder(CLI::App& app) : app_(app) {}

  template <typename Value>
  CLI::Option* Add(const std::string& name, Value& value,
                   const std::string& help) {
    return app_.add_option(name, value, help)
        ->envname(EnvironmentName(name))
        ->capture_default_str();
  }

  CLI::Option* AddList(const std::string& name,
                       std::vector<std::string>& values,
                       const std::string& help) {
    return Add(name, values, help)->delimiter(',')->allow_extra_args(false);
  }

  void AddFlag(const std::string& name, bool& value, const std::string& help) {
    app_.add_flag(name, value, help)->envname(EnvironmentName(name));
  }

  void AddCount(const std::string& name, int64_t& value,
                const std::string& help) {
    const auto is_count = [](const std::string& text) {
      int64_t count = 0;
      return absl::SimpleAtoi(text, &count) && count > 0;
    };
    Add(name, value, help)
        ->check(MakeValidator("whole number above 0", is_count));
  }

  void AddBytes(const std::string& name, int64_t& value,
                const std::string& help) {
    Add(name, value, help)
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
        ->check(CLI::NonNegativeNumber)
        ->type_name("SIZE");
  }

  void AddDuration(const std::string& name, absl::Duration& value,
                   const std::string& help) {
    const auto set = [&value](const std::string& text) {
      ReadDuration(text, value);
    };
    const auto is_duration = [](const std::string& text) {
      absl::Duration parsed;
      return ReadDuration(text, parsed);
    };
    app_.add_option_function<std::string>(name, set, help)
        ->envname(EnvironmentName(name))
        ->default_str(absl::FormatDuration(value))
        ->check(MakeValidator("duration like 500ms, 30s or 10m", is_duration))
        ->type_name("DURATION");
  }

 private:
  CLI::App& app_;
};

void AddServing(Adder& add, Options& options) {
  add.Add("--listen", options.listen,
          "Address to listen on: unix:/path or host:port (port 0: any free "
          "port). A Unix socket may have ,principal=NAME (everybody there is "
          "NAME), ,principal-from=account (the account that connects) or "
          ",principal-from=backboned-principal (a front, which names each "
          "caller), and ,user=ACCOUNT ,group=GROUP ,mode=OCTAL (who may "
          "connect besides the server's account). An address with ,serve=admin "
          "takes no calls: it answers HTTP about the server; repeatable")
      ->allow_extra_args(false)
      ->type_name("ADDRESS[,OPTION=VALUE]...");
  add.Add("--users", options.users,
          "File of those who may call, and what each may do; read again when "
          "it changes, and at SIGHUP. Without it, everybody whom an address "
          "lets in may call and train")
      ->type_name("FILE");
  add.Add("--ready-file", options.ready_file,
          "Connection file to write when the server serves, with its first "
          "address as programs of this machine reach it, and to remove at the "
          "end")
      ->type_name("FILE");
  add.AddFlag("--die-with-parent", options.die_with_parent,
              "Drain and end when the process that started the server has "
              "ended");
  add.Add("--audit-log", options.audit_log,
          "File to which refused calls and changes of users are added, a line "
          "of JSON each; else the log has them")
      ->type_name("FILE");
  add.AddFlag(
      "--insecure-remote", options.insecure_remote,
      "Allow addresses beyond loopback, without authentication or encryption");
  add.AddList(
      "--device", options.devices,
      "Devices: cpu, cuda or cuda:N; the first is the default; repeatable");
  add.Add("--threads", options.threads,
          "Intra-operator threads of the CPU device; 0: LibTorch's choice. "
          "Equal numbers "
          "here and in a local run give equal bits")
      ->check(CLI::Range(0, 1024));
  add.AddBytes("--pinned-bytes", options.pinned_bytes,
               "Most bytes of host memory to pin, which makes a GPU's copies "
               "faster; 0: none, since it was not tried on a GPU yet");
  add.AddBytes("--graph-bytes", options.graph_bytes,
               "Most bytes of each GPU's memory for CUDA graphs of forwards "
               "and training steps, which save launches; 0: none, since it was "
               "not tried on "
               "a GPU yet");
  add.AddFlag(
      "--deterministic", options.deterministic,
      "Use only algorithms that give the same bits each time, as a CPU's "
      "do anyway; on a GPU, work for which there is none fails");
  add.AddList("--instance", options.instances,
              "Instance to host from the start: BENCHMARK or BENCHMARK=NAME, "
              "drawn with seed 0, or, with @WEIGHTS at the end, loaded from a "
              "file of --weights-dir; repeatable");
  add.Add("--weights-dir", options.weights_dir,
          "Folder of NAME.safetensors files that instances may begin with")
      ->type_name("DIR");
  add.Add("--state-dir", options.state_dir,
          "Folder for named instances and checkpoints, which outlive the "
          "server; no other server may use it")
      ->type_name("DIR");
  add.AddDuration("--save-interval", options.save_interval,
                  "Time after which a named instance that changed is saved in "
                  "--state-dir; inf: at the end only");
  add.Add("--save-versions", options.save_versions,
          "Versions of its parameters after which it is saved earlier; 0: "
          "however many")
      ->check(CLI::NonNegativeNumber);
  add.Add("--omp-wait", options.omp_wait,
          "Waiting of idle threads: auto, passive (sleep: best beside busy "
          "clients) or "
          "active (spin: lowest latency on a quiet machine)")
      ->check(CLI::IsMember({"auto", "active", "passive"}));
  add.Add("--reflection", options.reflection, "Offer gRPC reflection")
      ->default_str("true");
  add.Add("--log-level", options.log_level,
          "Lowest level of the messages logged to standard error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
}

// Reads PRINCIPAL=NUMBER with a positive number; returns empty for other texts.
std::optional<std::pair<std::string, double>> ReadPrincipalNumber(
    const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '=');
  double number = 0;
  if (parts.size() != 2 || !CheckName(parts[0]).ok() ||
      !absl::SimpleAtod(parts[1], &number) || !std::isfinite(number) ||
      number <= 0) {
    return std::nullopt;
  }
  return std::pair(parts[0], number);
}

// Reads such texts. The last one of a principal counts.
NumberByPrincipal::Numbers ReadAll(const std::vector<std::string>& texts) {
  NumberByPrincipal::Numbers numbers;
  for (const std::string& text : texts) {
    const auto [principal, number] = *ReadPrincipalNumber(text);
    numbers.insert_or_assign(principal, number);
  }
  return numbers;
}

bool IsFraction(double number) { return number > 0 && number <= 1; }

// Adds --quota, whose texts it reads into `quotas`, and --session-quota.
void AddQuotas(Adder& add, Quotas& quotas, std::vector<std::string>& texts) {
  const auto is_quota = [](const std::string& text) {
    const auto quota = ReadPrincipalNumber(text);
    return quota && IsFraction(quota->second);
  };
  add.AddList("--quota", texts,
              "Part of each limit that a principal may use: "
              "PRINCIPAL=FRACTION; others have --principal-quota; repeatable")
      ->check(MakeValidator(
          "PRINCIPAL=FRACTION with a fraction above 0 and at most 1", is_quota))
      ->type_name("PRINCIPAL=FRACTION");
  const auto is_fraction = [](const std::string& text) {
    double fraction = 0;
    return absl::SimpleAtod(text, &fraction) && IsFraction(fraction);
  };
  add.Add("--principal-quota", quotas.principal,
          "Part of each limit that a principal may use which --quota does not "
          "name; below 1, one person cannot take everything")
      ->check(MakeValidator("fraction above 0 and at most 1", is_fraction))
      ->type_name("FRACTION");
  add.Add("--session-quota", quotas.session,
          "Part of each limit that one session (a client process) may use; "
          "1 if only one client uses the server")
      ->check(MakeValidator("fraction above 0 and at most 1", is_fraction))
      ->type_name("FRACTION");
}

// Adds --share, whose texts it reads into `shares`, and the rules of batches.
void AddSharing(Adder& add, Options& options,
                std::vector<std::string>& shares) {
  const auto is_share = [](const std::string& text) {
    return ReadPrincipalNumber(text).has_value();
  };
  add.AddList("--share", shares,
              "Weight of a principal's share of a device: PRINCIPAL=WEIGHT; "
              "other principals have 1; repeatable")
      ->check(
          MakeValidator("PRINCIPAL=WEIGHT with a positive weight", is_share))
      ->type_name("PRINCIPAL=WEIGHT");
  add.Add("--max-batch", options.max_batch,
          "Most samples in a batch of forwards that allow merging; 0: no "
          "merging")
      ->check(CLI::Range(int64_t{0}, int64_t{65'536}));
  add.Add("--max-delay-us", options.max_delay_us,
          "Most microseconds that a forward that allows merging waits for "
          "others; 0: only those that wait when the device is free run "
          "together")
      ->check(CLI::Range(int64_t{0}, int64_t{1'000'000}));
}

void AddLimits(Adder& add, Limits& limits) {
  for (const LimitRow& row : LimitTable()) {
    const std::string name = absl::StrCat("--", row.name);
    if (row.kind == LimitRow::Kind::kTime) {
      add.AddDuration(name,
                      limits.*std::get<absl::Duration Limits::*>(row.value),
                      row.help);
      continue;
    }
    int64_t& value = limits.*std::get<int64_t Limits::*>(row.value);
    if (row.kind == LimitRow::Kind::kCount) {
      add.AddCount(name, value, row.help);
    } else {
      add.AddBytes(name, value, row.help);
    }
  }
}

// Has no variable: a check's environment is that of its server.
CLI::Option* AddCheck(CLI::App& app, std::string& target) {
  return app
      .add_option(
          "--check", target,
          "Ask a running server whether it serves, instead of serving: the "
          "one at TARGET, else at the first --listen; the exit status is 0 if "
          "it does")
      ->expected(0, 1)
      ->configurable(false)
      ->type_name("TARGET");
}

// Adds --config, which `file` reads, and what tells of the configuration.
void AddConfig(CLI::App& app, const std::shared_ptr<ConfigFile>& file,
               Options& options, bool& table) {
  constexpr char kVariable[] = "BACKBONED_CONFIG";
  const char* const variable = std::getenv(kVariable);
  const std::string path = variable == nullptr ? "" : variable;
  app.set_config(
         "--config", path,
         "File of options in YAML: KEY: VALUE, where the keys are these "
         "options without dashes; lists are lists. The command line "
         "wins over the environment, that over the file; read again at "
         "SIGHUP",
         /*required=*/!path.empty())
      ->envname(kVariable)
      ->configurable(false)
      ->type_name("FILE");
  app.config_formatter(file);
  app.add_flag("--check-config", options.check_config,
               "Say what is wrong with the options and the files that they "
               "name, or print all options, instead of serving")
      ->configurable(false);
  app.add_flag("--print-options", table, "")->configurable(false)->group("");
}

std::string KeyOf(const CLI::Option& option) {
  return option.get_configurable() && !option.get_lnames().empty()
             ? option.get_lnames().front()
             : "";
}

// Returns the texts of an option's default.
std::vector<std::string> DefaultOf(const CLI::Option& option) {
  if (option.get_expected_min() == 0) return {"false"};
  std::string text = option.get_default_str();
  if (!text.starts_with('[')) return {text};
  text = text.substr(1, text.size() - 2);
  if (text.empty()) return {};
  return absl::StrSplit(text, ',');
}

// Returns the options' texts by key.
std::map<std::string, std::vector<std::string>> TextsOf(const CLI::App& app) {
  std::map<std::string, std::vector<std::string>> texts;
  for (const CLI::Option* option : app.get_options()) {
    const std::string key = KeyOf(*option);
    if (key.empty()) continue;
    texts[key] = option->count() > 0 ? option->results() : DefaultOf(*option);
  }
  return texts;
}

// Prints the table of docs/configuration.md, but for the limits, which have
// theirs.
void PrintTable(const CLI::App& app) {
  std::set<std::string> limits;
  for (const LimitRow& row : LimitTable()) limits.insert(row.name);
  std::cout << "| key | default | |\n| --- | --- | --- |\n";
  for (const CLI::Option* option : app.get_options()) {
    const std::string key = KeyOf(*option);
    if (key.empty() || limits.contains(key)) continue;
    const std::string usual = absl::StrJoin(DefaultOf(*option), ", ");
    const std::string shown =
        usual.empty() ? "" : absl::StrCat("`", usual, "`");
    std::cout << "| `" << key << "` | " << shown << " | "
              << option->get_description() << " |\n";
  }
}

// Returns the environment variables of the options.
std::vector<std::string> Variables(const CLI::App& app) {
  std::vector<std::string> variables;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_envname().empty()) {
      variables.push_back(option->get_envname());
    }
  }
  return variables;
}

// Prints what is wrong and returns the exit status.
int Refuse(std::string_view message, std::ostream& errors) {
  errors << "backboned: " << message << "\nTry: backboned --help\n";
  return 2;
}

}  // namespace

SchedulerOptions SchedulingOf(const Options& options) {
  return {.max_batch = options.max_batch,
          .max_delay = absl::Microseconds(options.max_delay_us)};
}

std::variant<Options, int> ParseOptions(int argc, char** argv,
                                        std::ostream& errors) {
  Options options;
  options.limits.max_memory_bytes = MachineMemoryBytes() / 10 * 9;
  CLI::App app(
      "Hosts neural-network backbones for continual learning.\n"
      "Each option is an environment variable too: --max-tapes is "
      "BACKBONED_MAX_TAPES; lists are separated by commas. And each is a key "
      "of "
      "the file that --config names.",
      "backboned");
  app.set_version_flag("--version",
                       absl::StrCat("backboned ", Version(), " (LibTorch ",
                                    TorchVersion(), ")"));
  Adder add(app);
  AddServing(add, options);
  std::vector<std::string> shares;
  AddSharing(add, options, shares);
  AddLimits(add, options.limits);
  std::vector<std::string> quotas;
  AddQuotas(add, options.limits.quotas, quotas);
  std::string check_target;
  const CLI::Option* check = AddCheck(app, check_target);
  const auto file = std::make_shared<ConfigFile>(app);
  bool table = false;
  AddConfig(app, file, options, table);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::FileError& error) {
    return Refuse(absl::StrCat("--config: ", error.what()), errors);
  } catch (const CLI::ParseError& error) {
    return Refuse(file->Explain(error.what()), errors);
  }
  // One that can be read once only would be empty for the process that goes on.
  const auto path = app.get_config_ptr()->as<std::string>();
  if (!path.empty() && !std::filesystem::is_regular_file(path)) {
    return Refuse(absl::StrCat("--config: ", path, " is no regular file"),
                  errors);
  }
  if (table) {
    PrintTable(app);
    return 0;
  }
  options.texts = TextsOf(app);
  options.unknown_variables = UnknownVariables(environ, Variables(app));
  options.limits.quotas.principals.Set(ReadAll(quotas));
  options.shares.Set(ReadAll(shares));
  if (check->count() > 0) options.check = check_target;
  return options;
}

}  // namespace backboned
