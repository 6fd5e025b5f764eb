#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/model.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

class Interrupt : public ::testing::Test {
 protected:
  void TearDown() override { set_interrupt_check(nullptr); }

  // A check that throws at its call number `last`.
  void stop_at(int last) {
    calls_ = 0;
    set_interrupt_check([this, last] {
      if (++calls_ == last) {
        throw Interrupted("stop");
      }
    });
  }

  std::atomic<int> calls_ = 0;
};

class CountsBlocks : public Observer {
 public:
  void hidden_state(size_t, const at::Tensor&) override { ++blocks; }
  int blocks = 0;
};

TEST_F(Interrupt, DoesNothingWhereNoCheckIsSet) {
  check_interrupt();
  set_interrupt_check([this] { ++calls_; });
  check_interrupt();
  set_interrupt_check(nullptr);
  check_interrupt();
  EXPECT_EQ(calls_, 1);
}

TEST_F(Interrupt, StopsAForwardPassBeforeABlock) {
  const Model model = random_model({.layers = 4});
  const at::Tensor tokens = random_tokens(2, 12);
  const at::Tensor expected = model.forward(tokens);
  stop_at(3);
  CountsBlocks observer;
  EXPECT_THROW(model.forward(tokens, {.observer = &observer}), Interrupted);
  EXPECT_EQ(observer.blocks, 2);
  EXPECT_TRUE(at::equal(model.forward(tokens), expected));
}

TEST_F(Interrupt, LeavesACacheAsItWas) {
  const Model model = random_model({.layers = 4});
  const at::Tensor tokens = random_tokens(1, 40);
  KvCache cache(model), untouched(model);
  for (KvCache* each : {&cache, &untouched}) {
    model.forward(tokens.narrow(1, 0, 8), {.cache = each});
  }
  stop_at(3);
  EXPECT_THROW(model.forward(tokens.narrow(1, 8, 32), {.cache = &cache}), Interrupted);
  EXPECT_EQ(cache.length(), 8);
  const at::Tensor rest = tokens.narrow(1, 8, 4);
  EXPECT_TRUE(at::equal(model.forward(rest, {.cache = &cache}), model.forward(rest, {.cache = &untouched})));
}

TEST_F(Interrupt, StopsBetweenLinears) {
  const Model model = random_model();
  const at::Tensor before = model.blocks[0].attention.q.weight.clone();
  stop_at(5);
  int changed = 0;
  EXPECT_THROW(map_linears(model, {},
                           [&](const std::string&, const Linear& linear) {
                             ++changed;
                             return linear;
                           }),
               Interrupted);
  EXPECT_EQ(changed, 4);
  EXPECT_TRUE(at::equal(model.blocks[0].attention.q.weight, before));
}

TEST_F(Interrupt, TakesAnyException) {
  set_interrupt_check([] { throw std::out_of_range("enough"); });
  EXPECT_THROW(random_model().forward(random_tokens(1, 4)), std::out_of_range);
}

TEST_F(Interrupt, MayBeSetWhileOthersCompute) {
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        check_interrupt();
      }
    });
  }
  for (int i = 0; i < 2000; ++i) {
    set_interrupt_check([this, kept = std::vector<int>(8, i)] { calls_ += kept.back() - kept.front(); });
    set_interrupt_check(nullptr);
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(calls_, 0);
}

}  // namespace
}  // namespace hemostat
