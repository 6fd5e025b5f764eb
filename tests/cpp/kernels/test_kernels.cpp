// Room kernels as C++ calls it: each function against a loop written from its definition.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <hemostat/kernels.h>

namespace hemostat {
namespace {

using kernels::Scope;

at::Tensor random(int64_t rows, int64_t columns, uint64_t seed = 0) {
  return at::randn({rows, columns}, at::detail::createCPUGenerator(seed), at::kFloat);
}

std::string message_of(auto&& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// Indices in the order in which equal scores keep their place.
std::vector<int64_t> order_of(const float* scores, int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] < scores[b]; });
  return order;
}

// Rows of `columns` ranked alone.
at::Tensor expected_mask(const at::Tensor& score, int64_t columns, int64_t removed) {
  const at::Tensor dense = score.contiguous();
  at::Tensor mask = at::ones(score.sizes(), at::kBool);
  for (int64_t begin = 0; begin < score.numel(); begin += columns) {
    const auto order = order_of(dense.const_data_ptr<float>() + begin, columns);
    for (int64_t i = 0; i < removed; ++i) mask.mutable_data_ptr<bool>()[begin + order[i]] = false;
  }
  return mask;
}

TEST(MaskSmallest, RemovesTheSmallestOfEachScope) {
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 7}, {9, 1500}, {400, 1000}}) {
    const at::Tensor score = at::round(random(rows, columns) * 20);  // with ties
    at::Tensor out = at::zeros({rows, columns}, at::kBool);
    for (const int64_t removed : {int64_t{0}, columns / 3, columns}) {
      EXPECT_EQ(kernels::mask_smallest(score, {}, removed, Scope::row, false, out).item<int64_t>(), 0);
      EXPECT_TRUE(at::equal(out, expected_mask(score, columns, removed)));
      EXPECT_EQ(kernels::mask_smallest(score, {}, removed * rows, Scope::tensor, false, out).item<int64_t>(), 0);
      EXPECT_TRUE(at::equal(out, expected_mask(score, rows * columns, removed * rows)));
    }
  }
}

TEST(MaskSmallest, RanksMagnitudesTimesTheColumnScale) {
  const at::Tensor weight = random(6, 300);
  const at::Tensor scale = random(1, 300, 1).abs().view({300});
  at::Tensor out = at::zeros({6, 300}, at::kBool);
  kernels::mask_smallest(weight, scale, 100, Scope::row, true, out);
  EXPECT_TRUE(at::equal(out, expected_mask(weight.abs() * scale, 300, 100)));
}

TEST(MaskSmallest, CountsNaN) {
  at::Tensor score = random(4, 50);
  score[1][2] = std::numeric_limits<float>::quiet_NaN();
  at::Tensor out = at::zeros({4, 50}, at::kBool);
  for (const Scope scope : {Scope::row, Scope::tensor}) {
    EXPECT_EQ(kernels::mask_smallest(score, {}, 5, scope, false, out).item<int64_t>(), 1);
  }
}

TEST(MaskSmallest, SaysWhatIsWrong) {
  at::Tensor out = at::zeros({4, 8}, at::kBool);
  const std::string message = message_of([&] { kernels::mask_smallest(random(4, 8), {}, 9, Scope::row, false, out); });
  EXPECT_NE(message.find("hemostat.kernels.mask_smallest: removed must be in 0 … 8"), std::string::npos) << message;
}

TEST(MaskPattern, KeepsTheLargestOfEachGroup) {
  for (const int64_t m : {1, 2, 4, 5, 8, 16, 30}) {
    const at::Tensor score = at::round(random(5, 12 * m) * 4);
    at::Tensor out = at::zeros(score.sizes(), at::kBool);
    for (const int64_t n : {int64_t{0}, m / 2, m}) {
      kernels::mask_pattern(score, {}, n, m, false, out);
      EXPECT_TRUE(at::equal(out, expected_mask(score, m, m - n))) << n << ":" << m;
    }
  }
}

TEST(KeptUntil, IsTheRankOverTheEntries) {
  const at::Tensor score = at::round(random(300, 1000) * 50);
  for (const int64_t columns : {1000, 300'000}) {
    const Scope scope = columns == 1000 ? Scope::row : Scope::tensor;
    at::Tensor out = at::zeros(score.sizes(), at::kFloat);
    kernels::kept_until(score, {}, scope, false, out);
    at::Tensor expected = at::zeros(score.sizes(), at::kFloat);
    for (int64_t begin = 0; begin < score.numel(); begin += columns) {
      const auto order = order_of(score.const_data_ptr<float>() + begin, columns);
      for (int64_t i = 0; i < columns; ++i) {
        expected.mutable_data_ptr<float>()[begin + order[i]] = static_cast<float>(i + 1) / static_cast<float>(columns);
      }
    }
    EXPECT_TRUE(at::equal(out, expected));
  }
}

TEST(FakeQuantize, RoundsToTheGridOfEachGroup) {
  const at::Tensor weight = random(3, 96);
  at::Tensor out = at::zeros_like(weight);
  EXPECT_EQ(kernels::fake_quantize(weight, 8, 32, false, out).item<int64_t>(), 0);
  const float* values = weight.const_data_ptr<float>();
  for (int64_t begin = 0; begin < 288; begin += 32) {
    const float highest = std::max(0.0f, *std::max_element(values + begin, values + begin + 32));
    const float lowest = std::min(0.0f, *std::min_element(values + begin, values + begin + 32));
    const float scale = (highest - lowest) / 7;
    const float zero = std::nearbyint(-lowest / scale);
    for (int64_t i = begin; i < begin + 32; ++i) {
      const float code = std::clamp(std::nearbyint(values[i] / scale) + zero, 0.0f, 7.0f);
      EXPECT_EQ(out.const_data_ptr<float>()[i], (code - zero) * scale);
    }
  }
}

TEST(Quantize, CodesGiveTheFakeQuantizedWeight) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t group_size : {0, 32, 96}) {
      for (const bool symmetric : {false, true}) {
        const at::Tensor weight = random(5, 96).to(dtype);
        at::Tensor out = at::empty_like(weight);
        kernels::fake_quantize(weight, 16, group_size, symmetric, out);
        const auto [codes, scale, zero, invalid] = kernels::quantize(weight, 16, group_size, symmetric);
        const int64_t width = group_size == 0 ? 5 * 96 : group_size;
        const at::Tensor groups = codes.to(at::kFloat).view({-1, width});
        const at::Tensor values = (groups - zero.view({-1, 1})) * scale.view({-1, 1});
        EXPECT_TRUE(at::equal(values.view({5, 96}).to(dtype), out));
        EXPECT_EQ(invalid.item<int64_t>(), 0);
      }
    }
  }
}

TEST(Divergence, IsWhatSoftmaxSays) {
  const at::Tensor baseline = random(6, 5000) * 4, damaged = baseline + random(6, 5000, 1);
  const at::Tensor targets = at::arange(6, at::kLong) * 7;
  const auto found = kernels::divergence(baseline, damaged, targets, 0.8);
  const at::Tensor log_p = at::log_softmax(baseline.to(at::kDouble), 1);
  const at::Tensor log_q = at::log_softmax(damaged.to(at::kDouble) * 0.8, 1);
  const auto close = [](const at::Tensor& a, const at::Tensor& b) {
    return at::allclose(a.to(at::kDouble), b, /*rtol=*/1e-5, /*atol=*/2e-6);
  };
  EXPECT_TRUE(close(found.nll_baseline, -log_p.gather(1, targets.unsqueeze(1)).squeeze(1)));
  EXPECT_TRUE(close(found.nll_damaged, -log_q.gather(1, targets.unsqueeze(1)).squeeze(1)));
  EXPECT_TRUE(close(found.kl, (log_p.exp() * (log_p - log_q)).sum(1)));
  EXPECT_TRUE(close(found.kl_reverse, (log_q.exp() * (log_q - log_p)).sum(1)));
  EXPECT_TRUE(close(found.entropy_baseline, -(log_p.exp() * log_p).sum(1)));
  EXPECT_TRUE(close(found.entropy_damaged, -(log_q.exp() * log_q).sum(1)));
  EXPECT_TRUE(close(found.confidence_baseline, log_p.exp().amax(1)));
  EXPECT_TRUE(close(found.confidence_damaged, log_q.exp().amax(1)));
  EXPECT_TRUE(at::equal(found.top1_baseline, baseline.argmax(1)));
  EXPECT_TRUE(at::equal(found.top1_damaged, damaged.argmax(1)));
  const at::Tensor top = std::get<1>(baseline.topk(5)), damaged_top = std::get<1>(damaged.topk(5));
  const at::Tensor shared = (top.unsqueeze(2) == damaged_top.unsqueeze(1)).sum(at::IntArrayRef{1, 2});
  EXPECT_TRUE(at::equal(found.top5_overlap, shared.to(at::kFloat) / 5));
}

TEST(Divergence, OfARowFromItselfIsZero) {
  const at::Tensor logits = random(4, 3000);
  const auto found = kernels::divergence(logits, logits.clone(), at::zeros({4}, at::kLong));
  EXPECT_EQ(found.kl.abs().max().item<float>(), 0);
  EXPECT_EQ(found.kl_reverse.abs().max().item<float>(), 0);
}

TEST(Divergence, RefusesATargetOutsideTheVocabulary) {
  const at::Tensor logits = random(2, 8);
  const at::Tensor targets = at::full({2}, 8, at::kLong);
  const std::string message = message_of([&] { kernels::divergence(logits, logits, targets); });
  EXPECT_NE(message.find("targets[0] is 8, but the vocabulary has 8 tokens"), std::string::npos) << message;
}

TEST(Kernels, GiveTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor score = random(300, 1001);
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    at::Tensor mask = at::empty(score.sizes(), at::kBool), falls = at::empty_like(score),
               rounded = at::empty_like(score);
    kernels::mask_smallest(score, {}, 100'000, Scope::tensor, true, mask);
    kernels::kept_until(score, {}, Scope::tensor, true, falls);
    kernels::fake_quantize(score, 16, 0, false, rounded);
    const auto compared = kernels::divergence(score, rounded, at::zeros({300}, at::kLong));
    return std::vector<at::Tensor>{mask, falls, rounded, compared.kl, compared.entropy_damaged};
  };
  const int threads = at::get_num_threads();
  const auto one = run(1), three = run(3);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], three[i])) << i;
}

}  // namespace
}  // namespace hemostat
