// mnistmlp: two hidden layers of ReLUs, for MNIST.

#ifndef BACKBONED_BACKBONES_MNIST_MLP_H_
#define BACKBONED_BACKBONES_MNIST_MLP_H_

#include <span>

#include "backbones/architecture.h"
#include "backbones/layers.h"
#include "backbones/registry.h"

namespace backboned {

// Source: Mammoth, backbone/MNISTMLP.py, commit e75a491.
//
// Deviations: a `full` lists both hidden layers, `layers.1` being the features;
// Mammoth's has the features only. Input that is not contiguous is accepted.
class MnistMlp : public Architecture {
 public:
  // How the members of the family differ.
  struct Design {
    std::string name;
    // Elements of a sample.
    int64_t input_size;
    int64_t hidden_size;
    // Further state-dict keys, of Python's nested Sequentials.
    bool has_aliases;
  };

  // `arguments`: `num_classes` and others, as resolved by the registry.
  MnistMlp(const Design& design, const Arguments& arguments);

  // Takes [N, ...] with so many elements a sample; N may be 0.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  int64_t input_size_;
  Linear fc1_;
  Linear fc2_;
  Linear classifier_;
};

// The registry's entries.
std::vector<ArchitectureEntry> MnistMlpEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_MNIST_MLP_H_
