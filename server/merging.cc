#include "server/merging.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backbones/together.h"
#include "server/host_view.h"
#include "server/memory_account.h"

namespace backboned {
namespace {

// A piece of a forward: some rows of its input, and what they gave.
class Piece : public BatchWork {
 public:
  // `work` and `used` must outlive it.
  Piece(const ForwardWork& work, const StatePtr& used, at::Tensor rows)
      : work_(work), used_(used), rows_(std::move(rows)) {}

  int64_t samples() const { return rows_.size(0); }
  const std::vector<at::Tensor>& outputs() const { return done_.outputs; }

  // Whether it ran in one batch with others.
  bool merged() const { return merged_; }

  // What decides with whom it may run. The input is not prepared yet.
  ForwardPart Part() const {
    return {.architecture = &work_.instance->architecture(),
            .state = used_.get(),
            .x = rows_,
            .options = &work_.options};
  }

  absl::Status RunBatch(std::span<BatchWork* const> batch) override {
    std::vector<ForwardPart> parts;
    for (BatchWork* other : batch) {
      parts.push_back(static_cast<Piece*>(other)->PreparedPart());
      if (parts.size() > 1 && !CanRunTogether(parts.front(), parts.back())) {
        return absl::AbortedError("two keys are equal by chance");
      }
    }
    std::vector<ForwardOutput> outputs = Outputs(parts);
    for (size_t i = 0; i < batch.size(); ++i) {
      auto& piece = *static_cast<Piece*>(batch[i]);
      DeliverOutputs(piece.work_, outputs[i], piece.done_);
      piece.merged_ = batch.size() > 1;
    }
    return absl::OkStatus();
  }

 private:
  ForwardPart PreparedPart() const {
    ForwardPart part = Part();
    part.x = PrepareRows(work_, *used_, rows_);
    return part;
  }

  // One alone gets the bits of a forward that does not merge.
  static std::vector<ForwardOutput> Outputs(
      const std::vector<ForwardPart>& parts) {
    if (parts.size() > 1) return ForwardTogether(parts);
    const ForwardPart& only = parts[0];
    std::vector<ForwardOutput> outputs;
    outputs.push_back(
        Forward(*only.architecture, *only.state, only.x, *only.options));
    return outputs;
  }

  const ForwardWork& work_;
  const StatePtr& used_;
  const at::Tensor rows_;
  ForwardDone done_;
  bool merged_ = false;
};

// Puts the pieces' outputs below each other. By copying memory: computing is
// the worker's business.
std::vector<at::Tensor> Join(
    const std::vector<std::unique_ptr<Piece>>& pieces) {
  if (pieces.size() == 1) return pieces[0]->outputs();
  std::vector<at::Tensor> joined;
  for (size_t i = 0; i < pieces[0]->outputs().size(); ++i) {
    const at::Tensor& first = pieces[0]->outputs()[i];
    std::vector<int64_t> shape = first.sizes().vec();
    shape[0] = 0;
    for (const auto& piece : pieces) shape[0] += piece->outputs()[i].size(0);
    at::Tensor all = at::empty(shape, first.options());
    std::byte* place = MutableBytes(all).data();
    for (const auto& piece : pieces) {
      const at::Tensor& rows = piece->outputs()[i];
      std::memcpy(place, rows.const_data_ptr(), rows.nbytes());
      place += rows.nbytes();
    }
    joined.push_back(std::move(all));
  }
  return joined;
}

}  // namespace

bool MayMerge(const ForwardWork& work) {
  return work.allow_merge && !work.options.training && !work.options.record &&
         work.options.batch_norm.empty() && work.buffers.empty() &&
         work.input.size(0) > 0 &&
         work.instance->worker().scheduling().max_batch > 0;
}

absl::StatusOr<ForwardDone> RunMerged(DeviceWorker::Request request,
                                      ForwardWork work, StatePtr used) {
  DeviceWorker& worker = work.instance->worker();
  const int64_t most = worker.scheduling().max_batch;
  std::vector<std::unique_ptr<Piece>> pieces;
  std::vector<DeviceWorker::BatchItem> items;
  for (int64_t row = 0; row < work.input.size(0); row += most) {
    const int64_t count = std::min(most, work.input.size(0) - row);
    const bool whole = count == work.input.size(0);
    pieces.push_back(std::make_unique<Piece>(
        work, used, whole ? work.input : work.input.narrow(0, row, count)));
    items.push_back({.work = pieces.back().get(), .samples = count});
  }
  request.merge_key = TogetherKey(pieces[0]->Part());
  absl::StatusOr<DeviceWorker::Times> times =
      worker.RunTogether(request, items);
  if (!times.ok()) return times.status();
  ForwardDone done;
  {
    const ScopedAccount scope(work.account);
    done.outputs = Join(pieces);
    for (at::Tensor& output : done.outputs) {
      // Rows of a batch would keep the memory of all of it.
      if (output.storage().nbytes() <= output.nbytes()) continue;
      output = CopyOnHost(output);
    }
  }
  done.exact = pieces.size() == 1 && !pieces[0]->merged();
  if (work.return_buffers) {
    absl::StatusOr<std::vector<at::Tensor>> buffers =
        work.instance->HostView(request, used->buffers);
    if (!buffers.ok()) return buffers.status();
    done.buffers = *std::move(buffers);
  }
  done.buffers_version = used->buffers_version;
  done.rng_state = work.options.rng_state;
  done.used = std::move(used);
  done.times = *times;
  return done;
}

}  // namespace backboned
