#include "server/rpc/checkpoints/recovery.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "base/task.h"
#include "server/device/device_worker.h"
#include "server/instances/beginning.h"
#include "server/limits/catching.h"
#include "server/rpc/checkpoints/saving.h"
#include "server/rpc/convert/checkpoint_convert.h"

namespace backboned::rpc {
namespace {

// The pause between two looks at what has changed.
constexpr absl::Duration kPause = absl::Seconds(1);

// The bits of a version that count within one life of the server. Those above
// count the lives; both together fit a double of JavaScript.
constexpr int kVersionBits = 32;

// Work for an instance, which pays by itself: as a session of its owner's,
// since those that made the instances are gone.
DeviceWorker::Request RequestOf(Server& server, const std::string& owner,
                                const std::string& uid) {
  return {.principal = owner, .account = server.accounts().Of({owner, uid})};
}

}  // namespace

Recovery::Recovery(Server& server, CheckpointStore& store,
                   const Options& options)
    : server_(server), store_(store), options_(options) {}

Recovery::~Recovery() {
  End();
  if (began_ || !store_.folder().is_complete()) return;
  // Nobody was served, so the folder still has all.
  store_.folder().MarkComplete().IgnoreError();
}

void Recovery::Restore() {
  for (const v1::Record& record : store_.Living()) {
    const absl::Status restored =
        RunCatching([&] { return RestoreOne(record); });
    if (restored.ok()) continue;
    all_came_back_ = false;
    spdlog::error(
        "cannot bring back instance={}/{}, which stays on the disk: {}",
        record.checkpoint().owner(), record.checkpoint().name(),
        std::string(restored.message()));
  }
}

absl::Status Recovery::RestoreOne(const v1::Record& record) {
  const v1::Instance& saved = record.checkpoint().instance();
  absl::StatusOr<CreateOptions> options = OptionsOf(record, store_);
  if (!options.ok()) return options.status();
  options->name = saved.name();
  options->owner = saved.owner();
  options->session = saved.version().uid();
  options->caller = RequestOf(server_, saved.owner(), options->session);
  // This server may have other devices than the last one.
  if (server_.FindWorker(saved.device()).ok()) options->device = saved.device();
  const StateFolder& folder = store_.folder();
  // A folder that was copied may have counted less.
  const uint64_t life =
      std::max(folder.starts(),
               (std::max(saved.version().params(), saved.version().buffers()) >>
                kVersionBits) +
                   1);
  const uint64_t version = folder.is_complete() ? 0 : life << kVersionBits;
  std::get<Restored>(options->beginning).former = FormerOf(record, version);
  const absl::StatusOr<Created> created =
      BlockOn(server_.CreateInstance(*options));
  if (!created.ok()) return created.status();
  const Instance& instance = *created->instance;
  const StatePtr state = instance.state();
  Saved& known = saved_[instance.uid()];
  known.settings = instance.settings();
  known.params_version = state->params_version;
  known.time = server_.clock().Now();
  if (version == 0) known.state = state;  // Else the disk has another version.
  spdlog::info("brought back instance={} params_version={} saved={}",
               instance.FullName(), state->params_version,
               absl::FormatTime(absl::FromUnixSeconds(
                   record.checkpoint().create_time().seconds())));
  return absl::OkStatus();
}

void Recovery::Start() {
  began_ = true;
  thread_ = std::thread([this] { Run(); });
}

void Recovery::SaveAll() {
  End();
  spdlog::info("saving what changed");
  // An instance that did not come back may have had versions that are lost.
  if (!SaveDue(/*all=*/true) || !all_came_back_) return;
  const absl::Status marked = store_.folder().MarkComplete();
  if (!marked.ok()) spdlog::warn("{}", std::string(marked.message()));
}

void Recovery::End() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    ended_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

void Recovery::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (!ending_) ended_.WaitWithTimeout(&mutex_, kPause);
      if (ending_) return;
    }
    SaveDue(/*all=*/false);
    if (options_.checkpoint_ttl == absl::InfiniteDuration()) continue;
    const absl::Status dropped =
        store_.DropOlderThan(absl::Now() - options_.checkpoint_ttl);
    if (!dropped.ok()) spdlog::warn("{}", std::string(dropped.message()));
  }
}

bool Recovery::SaveDue(bool all) {
  bool is_saved = true;
  std::set<std::string> there;
  for (const std::shared_ptr<Instance>& instance : server_.registry().List()) {
    if (instance->identity().ephemeral) continue;
    there.insert(instance->uid());
    const StatePtr state = instance->state();
    if (IsDue(*instance, state, all)) is_saved &= Save(instance, state);
  }
  std::erase_if(
      saved_, [&](const auto& saved) { return !there.contains(saved.first); });
  return is_saved;
}

bool Recovery::IsDue(const Instance& instance, const StatePtr& state,
                     bool all) const {
  const auto found = saved_.find(instance.uid());
  if (found == saved_.end()) return true;
  const Saved& saved = found->second;
  if (saved.state.lock() == state && saved.settings == instance.settings()) {
    return false;
  }
  const uint64_t versions = state->params_version - saved.params_version;
  return all || server_.clock().Now() - saved.time >= options_.interval ||
         (options_.versions > 0 &&
          versions >= static_cast<uint64_t>(options_.versions));
}

bool Recovery::Save(const std::shared_ptr<Instance>& instance,
                    const StatePtr& state) {
  Saved saved = {.settings = instance->settings(),
                 .params_version = state->params_version};
  const SaveOptions options = {.owner = instance->identity().owner,
                               .name = instance->identity().name,
                               .recovery = true};
  const absl::Status status = RunCatching([&] {
    return BlockOn(SaveState(store_, server_.chores(),
                             RequestOf(server_, options.owner, instance->uid()),
                             instance, state, options))
        .status();
  });
  if (status.ok()) {
    saved.state = state;
  } else if (!instance->deleted()) {
    spdlog::warn("cannot save instance={}: {}", instance->FullName(),
                 std::string(status.message()));
  }
  saved.time = server_.clock().Now();
  saved_[instance->uid()] = std::move(saved);
  return status.ok();
}

}  // namespace backboned::rpc
