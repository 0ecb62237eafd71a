#include "server/rpc/convert/checkpoint_convert.h"

#include <google/protobuf/util/time_util.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "backbones/architectures.h"
#include "base/errors.h"
#include "server/device/platform.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/optimizer_convert.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {
namespace {

using google::protobuf::util::TimeUtil;

absl::Status Unreadable(const v1::Checkpoint& checkpoint,
                        const absl::Status& why) {
  return Error(
      absl::StatusCode::kFailedPrecondition, Reason::kCheckpointUnreadable,
      absl::StrCat(
          "checkpoint ", Quote(checkpoint.name()), " of ",
          checkpoint.server_version(),
          " cannot be made an instance here: ", std::string(why.message())));
}

StateVersion ReadVersion(const v1::Version& version) {
  return {.params = version.params(), .buffers = version.buffers()};
}

Rollback ReadRollback(const v1::Rollback& rollback) {
  Rollback result = {.raised = ReadVersion(rollback.raised())};
  for (const v1::Version& version : rollback.saved()) {
    result.saved.push_back(ReadVersion(version));
  }
  return result;
}

}  // namespace

v1::Record RecordOf(Instance& instance, const State& state) {
  v1::Record record;
  v1::Checkpoint& checkpoint = *record.mutable_checkpoint();
  *checkpoint.mutable_instance() = ToProto(instance, state);
  checkpoint.mutable_instance()->clear_saved();
  checkpoint.set_server_version(Version());
  checkpoint.set_torch_version(TorchVersion());
  for (const std::string& uid : instance.identity().column_uids) {
    record.add_column_uids(uid);
  }
  return record;
}

Restored::Former FormerOf(const v1::Record& record, uint64_t version) {
  const v1::Instance& saved = record.checkpoint().instance();
  Restored::Former former = {
      .uid = saved.version().uid(),
      .created = absl::FromUnixNanos(
          TimeUtil::TimestampToNanoseconds(saved.create_time())),
      .version = ReadVersion(saved.version()),
      .grads_changes = saved.gradient_changes()};
  if (saved.has_rollback()) former.rollback = ReadRollback(saved.rollback());
  if (version == 0) return former;
  const StateVersion known = former.version;
  former.version = {.params = version, .buffers = version};
  if (!former.rollback.has_value() || former.rollback->raised != known) {
    former.rollback.emplace();
  }
  former.rollback->saved.push_back(known);
  former.rollback->raised = former.version;
  return former;
}

absl::StatusOr<CreateOptions> OptionsOf(const v1::Record& record,
                                        CheckpointStore& store) {
  const v1::Checkpoint& checkpoint = record.checkpoint();
  const v1::Instance& saved = checkpoint.instance();
  const auto unreadable = [&](const absl::Status& why) {
    return Unreadable(checkpoint, why);
  };
  CreateOptions options = {.arguments = FromProto(saved.arguments()),
                           .normalization = FromProto(saved.normalization()),
                           .settings = FromProto(saved.settings())};
  // A benchmark of this server may have changed.
  const absl::StatusOr<const Benchmark*> benchmark =
      FindBenchmark(saved.benchmark());
  if (benchmark.ok() && (*benchmark)->architecture == saved.architecture()) {
    options.benchmark = saved.benchmark();
  } else {
    options.architecture = saved.architecture();
  }
  const absl::StatusOr<at::ScalarType> dtype =
      FloatFromProto(saved.dtype(), "dtype");
  if (!dtype.ok()) return unreadable(dtype.status());
  options.dtype = *dtype;
  const absl::StatusOr<Precision> precision = FromProto(saved.precision());
  if (!precision.ok()) return unreadable(precision.status());
  options.precision = *precision;
  const absl::StatusOr<std::shared_ptr<const Architecture>> built =
      BuildArchitecture(saved.architecture(), options.arguments,
                        static_cast<size_t>(saved.columns_size()));
  if (!built.ok()) return unreadable(built.status());
  Restored restored = {
      .store = &store,
      .files = FilesOf(record),
      .weights = saved.weights(),
      .weights_sha256 = saved.weights_sha256(),
      .columns = {saved.columns().begin(), saved.columns().end()},
      .column_uids = {record.column_uids().begin(),
                      record.column_uids().end()}};
  if (saved.has_optimizer()) {
    absl::StatusOr<OptimizerPtr> optimizer =
        FromProto(saved.optimizer(), (*built)->layout());
    if (!optimizer.ok()) return unreadable(optimizer.status());
    restored.optimizer = *std::move(optimizer);
  }
  options.beginning = std::move(restored);
  return options;
}

}  // namespace backboned::rpc
