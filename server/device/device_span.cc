#include "server/device/device_span.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace backboned {
namespace {

// Returns an event, with its time, at the end of what this thread has queued.
c10::Event Mark(c10::Device device) {
  const c10::impl::VirtualGuardImpl backend(device.type());
  c10::Event mark(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  mark.record(backend.getStream(device));
  return mark;
}

}  // namespace

void WaitFor(c10::Device device) {
  if (!device.is_cpu()) Mark(device).synchronize();
}

DeviceSpan::DeviceSpan(c10::Device device, const Clock& clock)
    : device_(device), clock_(clock), begun_(clock.Now()) {
  if (!device.is_cpu()) mark_ = Mark(device);
}

absl::Duration DeviceSpan::End() {
  if (!mark_.has_value()) return clock_.Now() - begun_;
  const c10::Event end = Mark(device_);
  end.synchronize();
  return absl::Milliseconds(mark_->elapsedTime(end));
}

}  // namespace backboned
