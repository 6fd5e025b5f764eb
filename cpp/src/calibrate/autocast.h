// Passes over calibration tokens that multiply in bfloat16.
#pragma once

#include <ATen/autocast_mode.h>

namespace hemostat {

// While it lives, matrix products of this thread take bfloat16, where that is asked for.
class Bfloat16Products {
 public:
  Bfloat16Products(c10::DeviceType device, bool on)
      : device_(device), sets_(on && !at::autocast::is_autocast_enabled(device)) {
    if (sets_) {
      at::autocast::set_autocast_enabled(device, true);
    }
  }
  ~Bfloat16Products() {
    if (sets_) {
      at::autocast::set_autocast_enabled(device_, false);
      at::autocast::clear_cache();
    }
  }
  Bfloat16Products(const Bfloat16Products&) = delete;
  Bfloat16Products& operator=(const Bfloat16Products&) = delete;

 private:
  c10::DeviceType device_;
  bool sets_;
};

}  // namespace hemostat
