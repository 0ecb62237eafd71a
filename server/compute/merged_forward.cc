#include "server/compute/merged_forward.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include "backbones/together.h"
#include "server/compute/recording.h"
#include "server/device/host_view.h"
#include "server/limits/memory_account.h"

namespace backboned {
namespace {

// A forward that runs together with others: in one turn if its rows fit a
// batch, else in turns of a batch's rows each.
class MergedForward : public BatchWork {
 public:
  // `work` and `used` must outlive this object.
  MergedForward(const ForwardWork& work, const StatePtr& used,
                int64_t max_batch)
      : work_(work), used_(used), max_batch_(max_batch) {}

  // Returns what decides which forwards it may run with, and the rows of its
  // next turn, which are not prepared yet.
  ForwardPart Part() const {
    return {.architecture = &work_.instance->architecture(),
            .state = used_.get(),
            .inputs = IsWhole() ? work_.inputs
                                : work_.inputs.Rows(row_, NextSamples()),
            .options = &work_.options};
  }

  // Call this after the last turn.
  std::vector<at::Tensor> TakeOutputs() { return std::move(outputs_); }

  // Returns whether the forward ran alone and whole.
  bool exact() const { return IsWhole() && !merged_; }

  // Returns the operations of all turns so far.
  int64_t flops() const { return flops_; }

  int64_t NextSamples() const override {
    return std::min(max_batch_, rows() - row_);
  }

  absl::Status RunBatch(std::span<BatchWork* const> batch) override {
    std::vector<MergedForward*> all;
    for (BatchWork* other : batch) {
      all.push_back(static_cast<MergedForward*>(other));
    }
    const std::vector<ForwardPart> parts = PreparedParts(all);
    for (const ForwardPart& part : parts) {
      if (!CanRunTogether(parts.front(), part)) {
        return absl::AbortedError("two keys are equal by chance");
      }
    }
    Deliver(all, Outputs(*work_.instance, parts));
    // Nothing fails from here on.
    for (MergedForward* other : all) other->EndTurn(all.size() > 1);
    return absl::OkStatus();
  }

 private:
  int64_t rows() const { return work_.inputs.rows(); }
  bool IsWhole() const { return rows() <= max_batch_; }

  bool IsOnGpu() const { return !work_.instance->worker().device().is_cpu(); }

  // Returns the parts of a batch with their inputs on the device, where they
  // come by one copy if they have the same form.
  static std::vector<ForwardPart> PreparedParts(
      const std::vector<MergedForward*>& all) {
    std::vector<ForwardPart> parts;
    for (const MergedForward* each : all) parts.push_back(each->Part());
    const MergedForward& first = *all.front();
    if (all.size() == 1 || !first.IsOnGpu() || !HaveOneForm(all)) {
      for (size_t i = 0; i < all.size(); ++i) {
        parts[i].inputs = all[i]->Prepared(parts[i].inputs);
      }
      return parts;
    }
    std::vector<at::Tensor> xs;
    for (const ForwardPart& part : parts) xs.push_back(part.inputs.x());
    const Inputs together = first.Prepared(at::cat(xs));
    int64_t begin = 0;
    for (ForwardPart& part : parts) {
      const int64_t rows = part.inputs.rows();
      part.inputs = together.Rows(begin, rows);
      begin += rows;
    }
    return parts;
  }

  Inputs Prepared(const Inputs& inputs) const {
    return PrepareInputs(*work_.instance, *used_, inputs);
  }

  // Returns whether the inputs of a batch are prepared in the same way.
  static bool HaveOneForm(const std::vector<MergedForward*>& all) {
    const ForwardWork& first = all.front()->work_;
    return std::ranges::all_of(all, [&](const MergedForward* each) {
      const ForwardWork& work = each->work_;
      return work.inputs.x().scalar_type() == first.inputs.x().scalar_type() &&
             work.inputs.x().sizes().slice(1) ==
                 first.inputs.x().sizes().slice(1) &&
             work.instance->identity().normalization ==
                 first.instance->identity().normalization;
    });
  }

  // A batch of one has the bits of a forward that does not merge.
  static std::vector<ForwardOutput> Outputs(
      const Instance& first, const std::vector<ForwardPart>& parts) {
    if (parts.size() > 1) return ForwardTogether(parts);
    const ForwardPart& only = parts[0];
    std::vector<ForwardOutput> outputs;
    outputs.push_back(Evaluate(first, *only.state, only.inputs, *only.options));
    return outputs;
  }

  // Brings a batch's outputs to the host, from a GPU all at once.
  static void Deliver(const std::vector<MergedForward*>& all,
                      std::vector<ForwardOutput> outputs) {
    if (!all.front()->IsOnGpu() || all.size() == 1) {
      for (size_t i = 0; i < all.size(); ++i) {
        const ForwardWork& work = all[i]->work_;
        const ScopedAccount scope(work.account);
        all[i]->Keep(DeliverOutputs(work, std::move(outputs[i].outputs)));
        all[i]->turn_flops_ = outputs[i].flops.forward;
      }
      return;
    }
    std::vector<at::Tensor> finished;
    for (size_t i = 0; i < all.size(); ++i) {
      std::ranges::move(
          FinishOutputs(all[i]->work_, std::move(outputs[i].outputs)),
          std::back_inserter(finished));
      all[i]->turn_flops_ = outputs[i].flops.forward;
    }
    finished = AllOnHost(std::move(finished));
    auto next = finished.begin();
    for (MergedForward* each : all) {
      const ScopedAccount scope(each->work_.account);
      std::vector<at::Tensor> own;
      for (size_t i = 0; i < each->work_.options.outputs.size(); ++i) {
        own.push_back(CopyOnHost(*next++));
      }
      each->Keep(std::move(own));
    }
  }

  // Keeps the turn's outputs, and allocates those of all turns.
  void Keep(std::vector<at::Tensor> delivered) {
    delivered_ = std::move(delivered);
    if (IsWhole() || !outputs_.empty()) return;
    std::vector<at::Tensor> all;
    for (const at::Tensor& turn : delivered_) {
      std::vector<int64_t> shape = turn.sizes().vec();
      shape[0] = rows();
      all.push_back(at::empty(shape, turn.options()));
    }
    outputs_ = std::move(all);
  }

  // Puts the turn's outputs below those of the earlier turns.
  void EndTurn(bool merged) {
    const int64_t count = NextSamples();
    merged_ = merged_ || merged;
    flops_ += turn_flops_;
    if (IsWhole()) {
      outputs_ = std::move(delivered_);
    } else {
      for (size_t i = 0; i < outputs_.size(); ++i) {
        const at::Tensor& turn = delivered_[i];
        const size_t row_bytes = turn.nbytes() / static_cast<size_t>(count);
        std::memcpy(MutableBytes(outputs_[i]).data() +
                        static_cast<size_t>(row_) * row_bytes,
                    turn.const_data_ptr(), turn.nbytes());
      }
    }
    row_ += count;
  }

  const ForwardWork& work_;
  const StatePtr& used_;
  const int64_t max_batch_;
  int64_t row_ = 0;                    // The first row of the next turn.
  std::vector<at::Tensor> delivered_;  // By the present turn.
  std::vector<at::Tensor> outputs_;
  bool merged_ = false;
  int64_t turn_flops_ = 0;  // Of the present turn.
  int64_t flops_ = 0;       // Of all turns.
};

}  // namespace

bool MayMerge(const ForwardWork& work) {
  return work.allow_merge && !work.options.training && !work.options.record &&
         work.options.batch_norm.empty() && work.buffers.empty() &&
         work.inputs.rows() > 0 &&
         work.instance->worker().scheduling().max_batch > 0;
}

Task<absl::StatusOr<ForwardDone>> RunMerged(DeviceWorker::Request request,
                                            ForwardWork work, StatePtr used) {
  DeviceWorker& worker = work.instance->worker();
  MergedForward forward(work, used, worker.scheduling().max_batch);
  request.merge_key = TogetherKey(forward.Part());
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await worker.RunTogether(request, forward);
  if (!times.ok()) co_return times.status();
  ForwardDone done;
  done.outputs = forward.TakeOutputs();
  {
    const ScopedAccount scope(work.account);
    done.outputs = AllCompactOnHost(std::move(done.outputs));
  }
  done.exact = forward.exact();
  done.flops = forward.flops();
  if (work.return_buffers) {
    absl::StatusOr<std::vector<at::Tensor>> buffers =
        co_await work.instance->HostView(request, used->buffers);
    if (!buffers.ok()) co_return buffers.status();
    done.buffers = *std::move(buffers);
  }
  done.buffers_version = used->buffers_version;
  done.rng_state = work.options.rng_state;
  done.used = std::move(used);
  done.times = *times;
  co_return done;
}

}  // namespace backboned
