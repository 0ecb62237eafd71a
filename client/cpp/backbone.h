// The verbs of an instance: forwards, backwards, parameters, gradients,
// buffers, optimizer.
//
//   Backbone net = client.backbone("seq-mnist");
//   v1::ForwardHeader header;
//   header.add_outputs("out");
//   *header.add_inputs() = spec;  // FLOAT32 [N, C, H, W]
//   auto answer = net.Forward(header, {std::as_bytes(std::span(x))});
//   std::span<float> logits = answer->tensors.As<float>(0);
//
// The names are those of backbone_service.proto. A verb takes its header and
// fills in the instance's name. Bytes are little-endian and in C order.
//
// Tensors are sent in the order of the header's specs, and received in that of
// the result's specs. Each verb that receives tensors has two forms: one
// allocates their memory, the other fills `destinations`, back to back, whose
// total size must be that of the tensors (else kInvalidArgument). After an
// error, destinations may be partly overwritten. Other errors are the server's
// (client/cpp/error.h); an answer that makes no sense is kInternal.

#ifndef BACKBONED_CLIENT_CPP_BACKBONE_H_
#define BACKBONED_CLIENT_CPP_BACKBONE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "client/cpp/connection.h"
#include "client/cpp/tensors.h"

namespace backboned::client {

// Bytes to send. They must not change until the verb returns, and are not used
// afterwards. After an error the verb may wait, past its deadline, for a
// connection that is still writing them.
using Source = std::span<const std::byte>;
using Sources = std::vector<Source>;

// The memory for received bytes.
using Destinations = std::vector<std::span<std::byte>>;

// A handle: copies refer to the same instance, and keep the connection open.
// Thread-safe; each verb is one call.
class Backbone {
 public:
  // Makes a handle of `name`, or `owner/name`, which need not exist.
  Backbone(std::shared_ptr<const Connection> connection, std::string name);

  const std::string& name() const { return name_; }

  // Runs a forward of the input, followed by the buffers if the header has
  // some. Receives the outputs, then the buffers if asked for.
  absl::StatusOr<Received<v1::ForwardResult>> Forward(
      v1::ForwardHeader header, const Sources& input) const;
  absl::StatusOr<v1::ForwardResult> Forward(v1::ForwardHeader header,
                                            const Sources& input,
                                            Destinations destinations) const;

  // Runs a backward with the outputs' gradients. Receives, as asked for, the
  // flat gradient, the input gradients, each tape's flat gradient, and the sum
  // of their squares.
  absl::StatusOr<Received<v1::BackwardResult>> Backward(
      v1::BackwardHeader header, const Sources& gradients) const;
  absl::StatusOr<v1::BackwardResult> Backward(v1::BackwardHeader header,
                                              const Sources& gradients,
                                              Destinations destinations) const;

  // Makes a training step with the input, followed by each term's labels or
  // targets. Receives the logits if asked for.
  absl::StatusOr<Received<v1::TrainStepResult>> TrainStep(
      v1::TrainStepHeader header, const Sources& batch) const;
  absl::StatusOr<v1::TrainStepResult> TrainStep(
      v1::TrainStepHeader header, const Sources& batch,
      Destinations destinations) const;

  // Drops tapes, of this or any other instance.
  absl::StatusOr<v1::ReleaseTapesResponse> ReleaseTapes(
      const std::vector<std::string>& tape_ids) const;

  // Receives a flat tensor of parameters.
  absl::StatusOr<Received<v1::GetParamsResult>> GetParams(
      v1::GetParamsRequest request = {}) const;
  absl::StatusOr<v1::GetParamsResult> GetParams(
      v1::GetParamsRequest request, std::span<std::byte> destination) const;

  // Sends a flat tensor of parameters, FLOAT32 unless the header has a spec.
  absl::StatusOr<v1::SetParamsResponse> SetParams(
      Source params, v1::SetParamsHeader header = {}) const;

  // Receives a flat tensor of the gradients that are present.
  absl::StatusOr<Received<v1::GetGradsResult>> GetGrads(
      v1::GetGradsRequest request = {}) const;
  absl::StatusOr<v1::GetGradsResult> GetGrads(
      v1::GetGradsRequest request, std::span<std::byte> destination) const;

  // Sends a flat tensor of gradients, FLOAT32 unless the header has a spec.
  absl::StatusOr<v1::SetGradsResponse> SetGrads(
      Source grads, v1::SetGradsHeader header = {}) const;

  // Removes gradients.
  absl::StatusOr<v1::ZeroGradsResponse> ZeroGrads(
      v1::ZeroGradsRequest request = {}) const;

  // Receives buffers, one tensor each.
  absl::StatusOr<Received<v1::GetBuffersResult>> GetBuffers(
      v1::GetBuffersRequest request = {}) const;
  absl::StatusOr<v1::GetBuffersResult> GetBuffers(
      v1::GetBuffersRequest request, Destinations destinations) const;

  // Sends buffers in the order of the header's specs.
  absl::StatusOr<v1::SetBuffersResponse> SetBuffers(
      v1::SetBuffersHeader header, const Sources& buffers) const;

  // Gives the instance an optimizer.
  absl::StatusOr<v1::ConfigureOptimizerResponse> ConfigureOptimizer(
      v1::ConfigureOptimizerRequest request) const;

  // Steps the optimizer.
  absl::StatusOr<v1::StepResponse> Step(v1::StepRequest request = {}) const;

  // Receives the tensors of the optimizer's state.
  absl::StatusOr<Received<v1::GetOptimizerStateResult>> GetOptimizerState(
      v1::GetOptimizerStateRequest request = {}) const;
  absl::StatusOr<v1::GetOptimizerStateResult> GetOptimizerState(
      v1::GetOptimizerStateRequest request, Destinations destinations) const;

  // Sends an optimizer, and the tensors of its state.
  absl::StatusOr<v1::SetOptimizerStateResponse> SetOptimizerState(
      v1::SetOptimizerStateHeader header, const Sources& tensors) const;

  // Receives features or logits of a small batch, by one message each way.
  absl::StatusOr<v1::ExtractResponse> Extract(v1::ExtractRequest request) const;

 private:
  // Returns `header` with the instance's name, and with a request id if it
  // needs one.
  template <typename Header>
  Header SetName(Header header) const;

  std::shared_ptr<const Connection> connection_;
  std::string name_;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_BACKBONE_H_
