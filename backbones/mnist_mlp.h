// mnistmlp: two hidden layers of ReLUs, for MNIST.

#ifndef BACKBONED_BACKBONES_MNIST_MLP_H_
#define BACKBONED_BACKBONES_MNIST_MLP_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"

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
    // Columns of a progressive network that come before it. Its adaptors of
    // their layers are declared, and not used: see MnistMlpEntries.
    size_t earlier_columns = 0;
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

// The registry's entries: mnistmlp, and mnistmlp-pnn.
//
// Source of the latter: Rusu et al. 2016, arXiv:1606.04671, as in Mammoth,
// backbone/MNISTMLP_PNN.py, commit e75a491. There a later column has parameters
// of adaptors and copies of the earlier columns, and computes what a first
// column does: its forward asks for a list of columns that nobody fills. The
// adaptors get no gradient.
std::vector<ArchitectureEntry> MnistMlpEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_MNIST_MLP_H_
