#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>
#include <hemostat/quantize.h>
#include <hemostat/solve.h>

namespace hemostat {
namespace {

struct Layer {
  at::Tensor weight, gram;
};

Layer layer(int64_t rows, int64_t columns) {
  at::manual_seed(0);
  const at::Tensor mix = at::eye(columns) + 0.2 * at::randn({columns, columns});
  const at::Tensor x = at::mm(at::randn({3 * columns, columns}), mix);
  return {.weight = at::randn({rows, columns}), .gram = at::mm(x.t(), x) / static_cast<double>(x.size(0))};
}

double output_error(const Layer& layer, const at::Tensor& solution) {
  const at::Tensor change = layer.weight - solution;
  return (at::mm(change, layer.gram) * change).sum().item<double>();
}

TEST(Solve, SparseGptMakesUpForWhatItRemoves) {
  const Layer given = layer(20, 96);
  const auto pruned = prune::sparsegpt(given.weight, given.gram, {.sparsity = .5, .block_size = 32});
  EXPECT_EQ(pruned.mask.logical_not().sum().item<int64_t>(), 20 * 96 / 2);
  EXPECT_TRUE(pruned.weight.masked_select(pruned.mask.logical_not()).eq(0).all().item<bool>());
  EXPECT_LT(output_error(given, pruned.weight), output_error(given, prune::apply(given.weight, pruned.mask)));
}

TEST(Solve, OneFactorServesEverySolution) {
  const Layer given = layer(16, 64);
  const solve::GramFactor factor(given.gram, {.block_size = 16});
  EXPECT_TRUE(at::equal(prune::sparsegpt(given.weight, factor, {.pattern = "2:4"}).weight,
                        prune::sparsegpt(given.weight, given.gram, {.pattern = "2:4", .block_size = 18}).weight));
  const quantize::GptqOptions options{.bits = 3, .group_size = 32, .block_size = 16};
  EXPECT_TRUE(
      at::equal(quantize::gptq(given.weight, factor, options), quantize::gptq(given.weight, given.gram, options)));
  EXPECT_TRUE(at::equal(quantize::gptq_packed(given.weight, factor, options)->dequantize(),
                        quantize::gptq(given.weight, factor, options)));
}

TEST(Solve, AFactorIsTheSameAtAnotherPlace) {
  const Layer given = layer(16, 64);
  const solve::GramFactor factor(given.gram, {.act_order = true, .block_size = 16});
  const solve::GramFactor held = factor.with_matrix(factor.matrix().clone());
  EXPECT_TRUE(at::equal(quantize::gptq(given.weight, held.to(at::kCPU), {.bits = 3, .group_size = 16}),
                        quantize::gptq(given.weight, factor, {.bits = 3, .group_size = 16})));
}

TEST(Solve, AdmmMakesUpForWhatItRemoves) {
  const Layer given = layer(20, 96);
  for (const char* pattern : {"", "2:4"}) {
    const prune::AdmmOptions options =
        *pattern == 0 ? prune::AdmmOptions{.sparsity = .5} : prune::AdmmOptions{.pattern = pattern};
    const auto pruned = prune::admm(given.weight, given.gram, options);
    EXPECT_EQ(pruned.mask.sum().item<int64_t>(), 20 * 96 / 2);
    EXPECT_TRUE(pruned.weight.masked_select(pruned.mask.logical_not()).eq(0).all().item<bool>());
    EXPECT_LT(output_error(given, pruned.weight), output_error(given, prune::apply(given.weight, pruned.mask)));
    const prune::AdmmFactor factor = prune::admm_factor(given.gram);
    EXPECT_TRUE(at::equal(prune::admm(given.weight, factor, options).weight, pruned.weight));
  }
}

TEST(Solve, GptqRoundsBetterThanToNearest) {
  const Layer given = layer(32, 128);
  EXPECT_LT(output_error(given, quantize::gptq(given.weight, given.gram, {.bits = 3})),
            output_error(given, quantize::rtn(given.weight, {.bits = 3, .group_size = 128})));
}

TEST(Solve, OptionsAreCheckedBeforeAnyWork) {
  const Layer given = layer(4, 16);
  EXPECT_THROW(prune::sparsegpt(given.weight, given.gram, {}), ValueError);
  EXPECT_THROW(prune::sparsegpt(given.weight, at::eye(8), {.sparsity = .5}), ValueError);
  EXPECT_THROW(quantize::gptq(given.weight, given.gram, {.group_size = 5}), ValueError);
  EXPECT_THROW(quantize::gptq(given.weight, given.gram.to(at::kDouble), {.group_size = 4}), TypeError);
  EXPECT_THROW(solve::GramFactor(at::diag(at::tensor({1.0F, -9.0F}))), NumericalError);
}

}  // namespace
}  // namespace hemostat
