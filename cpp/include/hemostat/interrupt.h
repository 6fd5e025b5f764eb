// How a long computation is asked to stop. The library asks at every block of a forward pass, at every piece of the
// head's logits, and before each linear layer that is prepared or changed; whoever writes a long loop asks in it too.
#pragma once

#include <functional>

namespace hemostat {

// Sets what check_interrupt() calls, for the whole program; empty: nothing. It runs on the thread that computes; what
// it throws (Interrupted, unless there is a better word) ends the computation and reaches its caller, and models,
// caches and statistics stay as usable as before. May be called from any thread at any time: a computation under way
// sees the new check at its next step.
//
//   std::signal(SIGINT, [](int) { stop = 1; });  // a volatile std::sig_atomic_t
//   set_interrupt_check([] { if (stop) throw Interrupted("stopped"); });
//
// In Python the extension module sets one that raises KeyboardInterrupt.
void set_interrupt_check(std::function<void()> check);

// Costs a load where no check is set.
void check_interrupt();

}  // namespace hemostat
