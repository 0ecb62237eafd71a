#include "server/instances/instance.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "absl/strings/str_cat.h"
#include "backbones/dtypes.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/random_id.h"
#include "server/device/chores.h"
#include "server/device/devices.h"
#include "server/device/gpu_memory.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

uint64_t NextLane() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

FeatureCache::Version VersionOf(const State& state) {
  return {.params = state.params_version, .buffers = state.buffers_version};
}

absl::Status Stale(std::string_view message) {
  return Error(absl::StatusCode::kAborted, Reason::kStaleVersion, message);
}

}  // namespace

Instance::Instance(Identity identity,
                   std::shared_ptr<const Architecture> architecture,
                   DeviceWorker& worker, StatePtr initial, Settings settings,
                   std::shared_ptr<Budget> cache_room)
    : identity_(std::move(identity)),
      architecture_(std::move(architecture)),
      worker_(worker),
      uid_(identity_.uid.empty() ? RandomId() : identity_.uid),
      lane_(NextLane()),
      digest_lane_(NextLane()),
      cache_(std::move(cache_room), {identity_.owner, identity_.session},
             VersionOf(*initial)),
      state_(std::move(initial)),
      settings_(std::move(settings)),
      trained_(TrainedUnder(settings_, architecture_->layout()).value()) {}

std::string Instance::FullName() const {
  return absl::StrCat(identity_.owner, "/", identity_.name);
}

StatePtr Instance::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

bool Instance::is_asleep() const {
  absl::MutexLock lock(&mutex_);
  return IsMeta(*state_);
}

void Instance::MarkSaved(const StatePtr& state) {
  absl::MutexLock lock(&mutex_);
  saved_ = state;
  saved_version_ = {.params = state->params_version,
                    .buffers = state->buffers_version};
}

bool Instance::IsSaved(const StatePtr& state) const {
  absl::MutexLock lock(&mutex_);
  return saved_.lock() == state;
}

bool Instance::Sleep(const StatePtr& state) {
  State meta =
      MetaState(architecture_->layout(), DtypeOf(*state), state->optimizer);
  meta.params_version = state->params_version;
  meta.buffers_version = state->buffers_version;
  meta.grads_changes = state->grads_changes;
  auto asleep = std::make_shared<const State>(std::move(meta));
  absl::MutexLock lock(&mutex_);
  if (state_ != state || saved_.lock() != state || IsMeta(*state)) return false;
  saved_ = asleep;
  state_ = std::move(asleep);
  return true;
}

void Instance::Awake(const StatePtr& asleep, StatePtr state) {
  CountOnGpu(*state);
  WaitFor(worker_.device());
  absl::MutexLock lock(&mutex_);
  if (state_ != asleep) return;
  if (saved_.lock() == asleep) saved_ = state;
  state_ = std::move(state);
}

std::optional<StateVersion> Instance::saved() const {
  absl::MutexLock lock(&mutex_);
  return saved_version_;
}

void Instance::NoteSaved(const State& state) {
  absl::MutexLock lock(&mutex_);
  saved_version_ = {.params = state.params_version,
                    .buffers = state.buffers_version};
}

Ownership Instance::ownership() const {
  absl::MutexLock lock(&mutex_);
  return {.owner = identity_.owner,
          .name = identity_.name,
          .shared = settings_.shared};
}

Settings Instance::settings() const {
  absl::MutexLock lock(&mutex_);
  return settings_;
}

std::vector<bool> Instance::trained() const {
  absl::MutexLock lock(&mutex_);
  return trained_;
}

Task<absl::Status> Instance::ChangeSettings(
    DeviceWorker::Request request, VersionCondition condition,
    const std::function<void(Settings&)>& change) {
  const DeviceWorker::Work work = [&]() -> absl::Status {
    absl::Status status = CheckAlive();
    if (status.ok()) status = CheckVersion(condition, *state());
    if (!status.ok()) return status;
    Settings next = settings();
    change(next);
    absl::StatusOr<std::vector<bool>> trained =
        TrainedUnder(next, architecture_->layout());
    if (!trained.ok()) return trained.status();
    status = CacheFits(next.feature_cache_bytes);
    if (status.ok()) status = cache_.Resize(next.feature_cache_bytes);
    if (!status.ok()) return status;
    if (deleted_) cache_.Resize(0).IgnoreError();  // Meanwhile.
    absl::MutexLock lock(&mutex_);
    settings_ = std::move(next);
    trained_ = *std::move(trained);
    return absl::OkStatus();
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await worker_.Run(request, work);
  co_return times.status();
}

std::optional<int64_t> Instance::RowBytes(const std::string& question) const {
  absl::MutexLock lock(&mutex_);
  const auto known = row_bytes_.find(question);
  if (known == row_bytes_.end()) return std::nullopt;
  return known->second;
}

void Instance::RememberRowBytes(const std::string& question, int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  constexpr size_t kMostKnown = 16;  // Clients choose the questions.
  if (row_bytes_.size() >= kMostKnown) row_bytes_.clear();
  row_bytes_[question] = bytes;
}

absl::Status Instance::OpenCache() {
  const int64_t bytes = settings().feature_cache_bytes;
  absl::Status fits = CacheFits(bytes);
  return fits.ok() ? cache_.Resize(bytes) : fits;
}

absl::Status Instance::CacheFits(int64_t bytes) const {
  const Arguments& arguments = architecture_->arguments();
  const auto classes = arguments.find("num_classes");
  const auto size = static_cast<int64_t>(c10::elementSize(DtypeOf(*state())));
  const int64_t least =
      FeatureCache::kEntryBytes +
      (classes == arguments.end() ? 0
                                  : std::get<int64_t>(classes->second) * size);
  if (bytes == 0 || bytes >= least) return absl::OkStatus();
  return InvalidOption(absl::StrCat("feature_cache_bytes is ", bytes,
                                    ", must be 0 (off) or at least ", least,
                                    ", which the logits of one sample take"));
}

absl::Status Instance::CheckVersion(const VersionCondition& condition,
                                    const State& state) const {
  if (!condition.uid.empty() && condition.uid != uid_) {
    return Stale(absl::StrCat("if_version has uid ", Quote(condition.uid),
                              ", the instance has ", Quote(uid_),
                              ": it was created again; read it again"));
  }
  if (condition.params.has_value() &&
      *condition.params != state.params_version) {
    const std::string lost =
        identity_.rollback.has_value() &&
                *condition.params < state.params_version
            ? absl::StrCat(
                  ", having come back after a restart of the server as "
                  "it was saved at ",
                  identity_.rollback->saved.back().params)
            : "";
    return Stale(absl::StrCat("if_version has params ", *condition.params,
                              ", the instance has ", state.params_version, lost,
                              "; read again and retry"));
  }
  if (condition.buffers.has_value() &&
      *condition.buffers != state.buffers_version) {
    return Stale(absl::StrCat("if_version has buffers ", *condition.buffers,
                              ", the instance has ", state.buffers_version,
                              "; read again and retry"));
  }
  return absl::OkStatus();
}

Task<absl::StatusOr<StatePtr>> Instance::Commit(
    DeviceWorker::Request request, VersionCondition condition,
    const std::function<absl::StatusOr<StatePtr>(const State&)>& make) {
  StatePtr published;
  const DeviceWorker::Work work = [&]() -> absl::Status {
    const StatePtr current = state();
    absl::Status writable = CheckWritable();
    if (!writable.ok()) return writable;
    absl::Status expected = CheckVersion(condition, *current);
    if (!expected.ok()) return expected;
    absl::StatusOr<StatePtr> next = make(*current);
    if (!next.ok()) return next.status();
    published = *next;
    Publish(*std::move(next));
    return absl::OkStatus();
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await worker_.Run(request, work);
  if (!times.ok()) co_return times.status();
  ++counters_.writes;
  co_return published;
}

void Instance::MarkDeleted() {
  deleted_ = true;
  cache_.Resize(0).IgnoreError();  // A smaller size always fits.
}

absl::Status Instance::CheckAlive() const {
  if (!deleted_) return absl::OkStatus();
  return Error(absl::StatusCode::kNotFound, Reason::kInstanceNotFound,
               absl::StrCat("instance ", Quote(identity_.name),
                            " was deleted meanwhile"));
}

absl::Status Instance::CheckWritable() const {
  absl::Status alive = CheckAlive();
  if (!alive.ok()) return alive;
  absl::MutexLock lock(&mutex_);
  if (!settings_.read_only) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kReadOnly,
               absl::StrCat("instance ", Quote(identity_.name),
                            " is read-only; clone it, or set read_only to "
                            "false with UpdateInstance"));
}

absl::Status Instance::CheckTrains() const {
  const at::ScalarType dtype = DtypeOf(*state());
  if (IsTrainableDtype(dtype)) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kReadOnly,
               absl::StrCat("instance ", Quote(identity_.name), " has dtype ",
                            DtypeName(dtype),
                            ", which allows evaluation only: no training, "
                            "tapes or gradients"));
}

void Instance::CountOnGpu(const State& state) const {
  if (worker_.device().is_cpu()) return;
  ForEachTensor(state, backboned::CountOnGpu);
}

void Instance::Publish(StatePtr next) {
  CountOnGpu(*next);
  WaitFor(worker_.device());
  const FeatureCache::Version version = VersionOf(*next);
  {
    absl::MutexLock lock(&mutex_);
    state_.swap(
        next);  // The old state, if nothing else holds it, dies after the lock.
  }
  cache_.MoveTo(version);
}

Task<absl::StatusOr<std::vector<at::Tensor>>> Instance::HostView(
    DeviceWorker::Request request, std::vector<at::Tensor> tensors,
    std::optional<at::ScalarType> dtype) const {
  const auto converts = [&](const at::Tensor& tensor) {
    return dtype && tensor.defined() && tensor.scalar_type() != *dtype;
  };
  if (worker_.device().is_cpu() && std::ranges::none_of(tensors, converts)) {
    co_return std::move(tensors);
  }
  const DeviceWorker::Work work = [&] {
    tensors = AllOnHost(tensors, dtype);
    return absl::OkStatus();
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await worker_.copies().Run(request, work);
  if (!times.ok()) co_return times.status();
  co_return std::move(tensors);
}

// A digest in progress. Used in its lane only, except `state`; `result` may be
// read once it is set.
struct Instance::Digesting {
  explicit Digesting(StatePtr of) : state(std::move(of)) {}

  // Brings the tensors to the host. For the worker's copies, unless they are
  // there.
  void Fetch() {
    if (!host.empty()) return;
    for (const auto* some : {&state->params, &state->buffers, &state->shared}) {
      host.insert(host.end(), some->begin(), some->end());
    }
    if (!host.empty() && !host[0].is_cpu()) {
      host = AllOnHost(std::move(host));
    }
  }

  // Takes a turn's bytes; returns false once the result is set.
  bool Advance() {
    constexpr size_t kBytesInATurn = 8 << 20;  // Some milliseconds' worth.
    size_t left = kBytesInATurn;
    while (left > 0 && next < host.size()) {
      const std::span<const std::byte> rest = Bytes(host[next]).subspan(offset);
      const size_t count = std::min(left, rest.size());
      hash.Update(rest.first(count));
      left -= count;
      offset += count;
      if (count == rest.size()) {
        ++next;
        offset = 0;
      }
    }
    if (next < host.size()) return true;
    if (result.empty()) result = hash.TakeHex();
    return false;
  }

  const StatePtr state;
  std::vector<at::Tensor> host;
  Sha256 hash;
  size_t next = 0;    // Index of a tensor.
  size_t offset = 0;  // In that tensor.
  std::string result = {};
};

std::shared_ptr<Instance::Digesting> Instance::DigestingOf(
    const StatePtr& state) {
  std::shared_ptr<Digesting> digesting = digesting_.lock();
  if (digesting == nullptr || digesting->state != state) {
    digesting = std::make_shared<Digesting>(state);
    digesting_ = digesting;
  }
  return digesting;
}

Task<absl::StatusOr<std::string>> Instance::Digest(
    DeviceWorker& chores, DeviceWorker::Request request, StatePtr state) {
  std::shared_ptr<Digesting> digesting;
  {
    absl::MutexLock lock(&mutex_);
    if (digest_.first.lock() == state) co_return digest_.second;
    digesting = DigestingOf(state);
  }
  request.lane = digest_lane_;
  if (!worker_.device().is_cpu()) {
    const DeviceWorker::Work fetch = [&] {
      digesting->Fetch();
      return absl::OkStatus();
    };
    const absl::StatusOr<DeviceWorker::Times> fetched =
        co_await worker_.copies().Run(request, fetch);
    if (!fetched.ok()) co_return fetched.status();
  }
  const std::function<absl::StatusOr<bool>()> step =
      [&]() -> absl::StatusOr<bool> {
    digesting->Fetch();
    return digesting->Advance();
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await RunChore(chores, request, step);
  if (!times.ok()) co_return times.status();
  absl::MutexLock lock(&mutex_);
  digest_ = {state, digesting->result};
  co_return digesting->result;
}

}  // namespace backboned
