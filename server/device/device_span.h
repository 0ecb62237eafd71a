// Waits for a device, and measures how long it works.

#ifndef BACKBONED_SERVER_DEVICE_DEVICE_SPAN_H_
#define BACKBONED_SERVER_DEVICE_DEVICE_SPAN_H_

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <optional>

#include "absl/time/time.h"
#include "base/clock.h"

namespace backboned {

// A GPU does its work later than it is asked to, and tells of a failure with
// the next wait. Nothing waits for a CPU, which has done its work at once.
//
// Waits until `device` has done the work of this thread. Throws c10::Error if
// some of it has failed.
void WaitFor(c10::Device device);

// Measures how long a device takes for the work of this thread.
class DeviceSpan {
 public:
  // Begins. `clock`, of a CPU's time, must outlive this.
  DeviceSpan(c10::Device device, const Clock& clock);

  // Waits as WaitFor, and returns the time since the beginning: the device's
  // own, without what it did before.
  absl::Duration End();

 private:
  const c10::Device device_;
  const Clock& clock_;
  const absl::Time begun_;
  std::optional<c10::Event> mark_;  // The beginning, on a GPU.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_DEVICE_SPAN_H_
