#include "backbones/autocast.h"

#include <ATen/autocast_mode.h>

namespace backboned {

ScopedAutocast::ScopedAutocast(bool on, c10::DeviceType device)
    : on_(on), device_(device) {
  if (!on_) return;
  at::autocast::set_autocast_dtype(device_, at::kBFloat16);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::increment_nesting();
}

ScopedAutocast::~ScopedAutocast() {
  if (!on_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, false);
}

}  // namespace backboned
