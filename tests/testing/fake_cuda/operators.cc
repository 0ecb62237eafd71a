// A libtorch_cuda.so without a GPU: LibTorch's operators on fake devices.
//
// A program that loads it has devices cuda:0 and so on, whose operators are the
// CPU's, with the same bits. Variables: FAKE_CUDA_DEVICES (1), FAKE_CUDA_BYTES
// (of a device: 8 GiB), FAKE_CUDA_KERNEL_US (that each operation takes: 0),
// FAKE_CUDA_FAULT (an operator that fails: aten::mm, or aten::mm:3, its third
// launch), FAKE_CUDA_LOG (prints counts at the end),
// FAKE_CUDA_DRIVER (its version, 0: there is none).

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/testing/fake_cuda/device.h"
#include "tests/testing/fake_cuda/memory.h"
#include "tests/testing/fake_cuda/streams.h"

namespace fake_cuda {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr c10::DispatchKeySet kCpu(c10::DispatchKey::CPU);
constexpr c10::DispatchKeySet kCuda(c10::DispatchKey::CUDA);

// The bytes that a host finds which reads memory too early.
constexpr int kRubbish = 0xA5;

// Operators that look at values on the host, and therefore wait.
const std::set<std::string> kWaiting = {"aten::_local_scalar_dense",
                                        "aten::equal", "aten::masked_select",
                                        "aten::nonzero", "aten::_unique2"};

// Operators whose other tensors may be the host's.
const std::set<std::string> kTakesHosts = {"aten::index", "aten::index_put_",
                                           "aten::_index_put_impl_"};

// Operators that compute in TF32 if the process allows it.
const std::set<std::string> kProducts = {"aten::mm", "aten::addmm", "aten::bmm",
                                         "aten::baddbmm"};

std::atomic<int64_t> copies_in = 0, copies_out = 0;

const void* BaseOf(const at::Tensor& tensor) {
  return tensor.storage().unsafeGetStorageImpl()->data();
}

// Returns a CPU tensor over the same elements, which must not outlive `tensor`.
at::Tensor Alias(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  const void* const base = BaseOf(tensor);
  c10::Storage storage(c10::Storage::use_byte_size_t(),
                       tensor.storage().nbytes(),
                       c10::DataPtr(base == nullptr ? nullptr : Shadow(base),
                                    c10::Device(c10::DeviceType::CPU)),
                       c10::GetCPUAllocator(), /*resizable=*/true);
  at::Tensor alias = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), kCpu, tensor.dtype());
  alias.unsafeGetTensorImpl()->set_sizes_and_strides(
      tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return alias;
}

at::Tensor ToDevice(const at::Tensor& host, c10::Device device) {
  if (!host.defined()) return host;
  const c10::DeviceGuard guard(device);
  at::Tensor result = at::detail::empty_strided_generic(
      host.sizes(), host.strides(), &DeviceMemory(), kCuda, host.scalar_type());
  at::Tensor alias = Alias(result);
  if (host.numel() > 0) alias.copy_(host);
  return result;
}

const at::Tensor& Resize(const at::Tensor& self, at::IntArrayRef size,
                         std::optional<at::MemoryFormat> /*format*/) {
  c10::TensorImpl* const impl = self.unsafeGetTensorImpl();
  const size_t bytes =
      static_cast<size_t>(c10::multiply_integers(size)) * self.itemsize();
  if (bytes > self.storage().nbytes()) {
    const c10::DeviceGuard guard(self.device());
    self.storage().set_data_ptr_noswap(DeviceMemory().allocate(bytes));
    self.storage().unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  impl->set_sizes_contiguous(size);
  return self;
}

// Returns a tensor with TF32's 10 bits of a fraction, as products read it.
at::Tensor InTf32(const at::Tensor& tensor) {
  if (tensor.scalar_type() != at::kFloat) return tensor;
  return tensor.contiguous().view(at::kInt).bitwise_and(~0x1fff).view(
      at::kFloat);
}

// An operator under way: its tensors, and the CPU's in their place.
class Operation {
 public:
  Operation(const c10::FunctionSchema& schema, torch::jit::Stack& stack)
      : schema_(schema), stack_(stack) {
    use_.name = schema.name();
    const bool is_product = kProducts.contains(use_.name);
    in_tf32_ = is_product && at::globalContext().allowTF32CuBLAS();
    TORCH_CHECK(!is_product || !at::globalContext().deterministicAlgorithms() ||
                    std::getenv("CUBLAS_WORKSPACE_CONFIG") != nullptr,
                "Deterministic behavior needs CUBLAS_WORKSPACE_CONFIG (fake)");
    const size_t count = schema.arguments().size();
    for (size_t i = 0; i < count; ++i) {
      const auto* const alias = schema.arguments()[i].alias_info();
      writes_ = alias != nullptr && alias->isWrite();
      Replace(stack[stack.size() - count + i]);
    }
  }

  void Run(const c10::OperatorHandle& op) {
    TORCH_CHECK(!mixes_ || kTakesHosts.contains(use_.name), use_.name,
                ": Expected all tensors to be on the same device (fake)");
    const c10::Stream stream = CurrentStream(device_.index());
    Streams::Get().Launch(stream, use_);
    op.redispatchBoxed(kCpu, &stack_);
    for (auto& [made, original] : aliases_) {
      if (made.sizes() == original.sizes()) continue;
      Resize(original, made.sizes(), std::nullopt);  // An output, empty before.
      Alias(original).copy_(made);
    }
    const size_t count = schema_.returns().size();
    for (size_t i = stack_.size() - count; i < stack_.size(); ++i) {
      c10::IValue& value = stack_[i];
      if (value.isTensor()) {
        value = Back(stream, value.toTensor());
      } else if (value.isTensorList()) {
        c10::List<at::Tensor> list;
        for (const at::Tensor& tensor : value.toTensorVector()) {
          list.push_back(Back(stream, tensor));
        }
        value = list;
      }
    }
    if (kWaiting.contains(use_.name)) Streams::Get().Wait(stream);
  }

 private:
  at::Tensor Replaced(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    // A host's scalar is a number.
    if (tensor.is_cuda() || tensor.dim() > 0) {
      mixes_ = mixes_ || (where_ && tensor.device() != *where_);
      where_ = tensor.device();
    }
    if (!tensor.is_cuda()) return tensor;
    device_ = tensor.device();
    (writes_ ? use_.writes : use_.reads).push_back(BaseOf(tensor));
    aliases_.emplace_back(Alias(tensor), tensor);
    const at::Tensor& alias = aliases_.back().first;
    return in_tf32_ && !writes_ ? InTf32(alias) : alias;
  }

  void Replace(c10::IValue& value) {
    if (value.isTensor()) {
      value = Replaced(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        list.push_back(Replaced(tensor));
      }
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional(Replaced(*tensor)) : tensor);
      }
      value = list;
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      if (value.toDevice().has_index()) device_ = value.toDevice();
      value = c10::Device(c10::DeviceType::CPU);
    }
  }

  // Returns the device's tensor for one that the CPU's operator has given.
  at::Tensor Back(const c10::Stream& stream, const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    for (const auto& [made, original] : aliases_) {
      if (made.is_same(tensor)) return original;
    }
    for (const auto& [made, original] : aliases_) {
      if (made.storage().unsafeGetStorageImpl() ==
          tensor.storage().unsafeGetStorageImpl()) {
        return original.as_strided(tensor.sizes(), tensor.strides(),
                                   tensor.storage_offset());
      }
    }
    at::Tensor result = ToDevice(tensor, device_);
    Streams::Get().Made(stream, use_, BaseOf(result));
    return result;
  }

  const c10::FunctionSchema& schema_;
  torch::jit::Stack& stack_;
  c10::Device device_{c10::DeviceType::CUDA, CurrentDevice()};
  std::optional<c10::Device> where_;  // The last tensor.
  bool mixes_ = false;
  bool in_tf32_ = false;
  Streams::Use use_;
  bool writes_ = false;
  std::vector<std::pair<at::Tensor, at::Tensor>> aliases_;
};

void Fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Operation(op.schema(), *stack).Run(op);
}

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> device,
                 std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &DeviceMemory(), kCuda,
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride,
                        std::optional<at::ScalarType> dtype,
                        std::optional<at::Layout>,
                        std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(size, stride, &DeviceMemory(), kCuda,
                                           dtype.value_or(at::kFloat));
}

// Ends the program if the host changes what a copy reads before it was made.
void CheckUnchanged(const c10::Stream& stream, const at::Tensor& source) {
  const void* const data = source.const_data_ptr();
  std::string bytes(static_cast<const char*>(data), source.nbytes());
  Streams::Get().Later(stream, BaseOf(source),
                       [data, bytes = std::move(bytes)] {
                         if (std::memcmp(data, bytes.data(), bytes.size()) == 0)
                           return;
                         std::fputs(
                             "fake-cuda: pinned memory was written before a "
                             "copy of it was made\n",
                             stderr);
                         std::abort();
                       });
}

void CopyLate(const c10::Stream& stream, const at::Tensor& to,
              at::Tensor value) {
  if (to.is_contiguous()) {
    std::memset(to.mutable_data_ptr(), kRubbish, to.nbytes());
  }
  // No holder, since the memory may be given back; pinned memory then forgets.
  at::Tensor place = at::from_blob(to.mutable_data_ptr(), to.sizes(),
                                   to.strides(), to.options());
  Streams::Get().Later(stream, BaseOf(to), [place, value = std::move(value)] {
    place.copy_(value);
  });
}

at::Tensor& Copy(at::Tensor& self, const at::Tensor& source,
                 bool non_blocking) {
  const bool is_in = !source.is_cuda(), is_out = !self.is_cuda();
  const at::Tensor& there = is_out ? source : self;
  const c10::Stream stream = CurrentStream(there.device().index());
  if (is_in || is_out) Streams::CheckNotRecorded();
  copies_in += is_in;
  copies_out += is_out;
  Streams::Use use = {.name = "aten::copy_"};
  if (!is_in) use.reads.push_back(BaseOf(source));
  if (!is_out) use.writes.push_back(BaseOf(self));
  Streams::Get().Launch(stream, use);
  if (self.numel() == 0) return self;
  if (!is_out) {
    Alias(self).copy_(Alias(source));
    if (!is_in) return self;
    if (!non_blocking) Streams::Get().Wait(stream);
    if (non_blocking && IsPinned(BaseOf(source)) && source.is_contiguous()) {
      CheckUnchanged(stream, source);
    }
  } else if (non_blocking && IsPinned(BaseOf(self))) {
    CopyLate(stream, self, Alias(source).to(self.scalar_type()).clone());
  } else {
    Streams::Get().Wait(stream);
    self.copy_(Alias(source));
  }
  return self;
}

// The CPU's choice, so that the bits are the CPU's.
int64_t ChooseAttention(const at::Tensor& query, const at::Tensor& key,
                        const at::Tensor& value,
                        const std::optional<at::Tensor>& mask, double dropout,
                        bool causal, std::optional<double> scale,
                        bool grouped) {
  const auto host_mask = mask ? std::optional(Alias(*mask)) : mask;
  return at::_fused_sdp_choice(Alias(query), Alias(key), Alias(value),
                               host_mask, dropout, causal, scale, grouped);
}

using Attended =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt,
               c10::SymInt, at::Tensor, at::Tensor, at::Tensor>;

// Runs `work` on aliases as an operator of `inputs`; returns its results there.
template <typename Work>
Tensors RunAs(const char* name, const Tensors& inputs, Work work) {
  const c10::Device device = inputs[0].device();
  const c10::Stream stream = CurrentStream(device.index());
  Streams::Use use = {.name = name};
  Tensors aliases;
  for (const at::Tensor& input : inputs) {
    use.reads.push_back(BaseOf(input));
    aliases.push_back(Alias(input));
  }
  Streams::Get().Launch(stream, use);
  Tensors results;
  for (const at::Tensor& result : work(aliases)) {
    results.push_back(ToDevice(result, device));
    Streams::Get().Made(stream, use, BaseOf(results.back()));
  }
  return results;
}

Attended Attention(const at::Tensor& query, const at::Tensor& key,
                   const at::Tensor& value, double dropout, bool causal,
                   bool /*debug*/, std::optional<double> scale) {
  const Tensors done = RunAs(
      "attention", {query, key, value}, [&](const Tensors& on_host) -> Tensors {
        auto [out, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(
            on_host[0], on_host[1], on_host[2], dropout, causal, {}, scale);
        return {out, log_sum};
      });
  const at::Tensor none;
  return {done[0],     done[1], none, none, query.size(2),
          key.size(2), none,    none, none};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> AttentionBackward(
    const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key,
    const at::Tensor& value, const at::Tensor& out, const at::Tensor& log_sum,
    const at::Tensor&, const at::Tensor&, c10::SymInt, c10::SymInt,
    double dropout, bool causal, const at::Tensor&, const at::Tensor&,
    std::optional<double> scale) {
  const Tensors done =
      RunAs("attention_backward", {grad, query, key, value, out, log_sum},
            [&](const Tensors& on_host) -> Tensors {
              auto [q, k, v] =
                  at::_scaled_dot_product_flash_attention_for_cpu_backward(
                      on_host[0], on_host[1], on_host[2], on_host[3],
                      on_host[4], on_host[5], dropout, causal, {}, scale);
              return {q, k, v};
            });
  return {done[0], done[1], done[2]};
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&Fallback>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &Empty);
  m.impl("empty_strided", &EmptyStrided);
  m.impl("copy_", &Copy);
  m.impl("resize_", &Resize);
  m.impl("view", &at::native::view);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("_scaled_dot_product_flash_attention", &Attention);
  m.impl("_scaled_dot_product_flash_attention_backward", &AttentionBackward);
  // These have kernels that call other operators, on any device.
  for (const char* const name :
       {"convolution", "convolution_backward", "native_batch_norm",
        "native_batch_norm_backward", "native_layer_norm",
        "native_group_norm"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&Fallback>());
  }
  // One launch for a list of tensors, as on a GPU.
  for (const c10::OperatorName& op :
       c10::Dispatcher::singleton().getAllOpNames()) {
    if (!op.name.starts_with("aten::_foreach_")) continue;
    m.impl(c10::toString(op).c_str(),
           torch::CppFunction::makeFromBoxedFunction<&Fallback>());
  }
}

struct Library {
  Library() {
    c10::SetAllocator(c10::DeviceType::CUDA, &DeviceMemory());
    at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&ChooseAttention);
  }
  ~Library() {
    if (std::getenv("FAKE_CUDA_LOG") == nullptr) return;
    std::fprintf(stderr,
                 "fake-cuda: %ld operations of %ld threads, %ld copies in, %ld "
                 "copies out, %ld waits, %ld in a row without one, %ld blocks "
                 "pinned\n",
                 Streams::Get().launches(), Streams::Get().threads(),
                 copies_in.load(), copies_out.load(), Streams::Get().waits(),
                 Streams::Get().longest(), registrations());
  }
} library;

}  // namespace
}  // namespace fake_cuda
