#include <hemostat/interrupt.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

namespace hemostat {
namespace {

struct Check {
  std::atomic<bool> is_set = false;
  std::mutex mutex;
  std::shared_ptr<const std::function<void()>> function;
};

Check& the_check() {
  static auto* check = new Check;  // outlives what still computes while the program ends
  return *check;
}

}  // namespace

void set_interrupt_check(std::function<void()> check) {
  Check& current = the_check();
  auto function = check ? std::make_shared<const std::function<void()>>(std::move(check)) : nullptr;
  const std::lock_guard lock(current.mutex);
  current.is_set = function != nullptr;
  current.function.swap(function);
}

void check_interrupt() {
  Check& current = the_check();
  if (!current.is_set.load(std::memory_order_relaxed)) {
    return;
  }
  std::shared_ptr<const std::function<void()>> function;
  {
    const std::lock_guard lock(current.mutex);
    function = current.function;
  }
  if (function) {
    (*function)();
  }
}

}  // namespace hemostat
