// Room quantize as a C++ program calls it: designated options, packed weights behind their abstract type, gradients.
#include <memory>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

namespace hemostat {
namespace {

at::Tensor random_weight(int64_t rows, int64_t columns, uint64_t seed = 0) {
  return at::randn({rows, columns}, at::detail::createCPUGenerator(seed), at::kFloat);
}

TEST(Rtn, RoundsToTheLevelsOfTheRange) {
  const at::Tensor weight = at::tensor({-1.0F, 0.2F, 0.9F, 2.0F}).view({1, 4});
  EXPECT_TRUE(at::equal(quantize::rtn(weight, {.bits = 2}), at::tensor({-1.0F, 0.0F, 1.0F, 2.0F}).view({1, 4})));
}

TEST(Rtn, ErrsByHalfAStepAtMost) {
  const at::Tensor weight = random_weight(16, 64);
  for (const bool symmetric : {false, true}) {
    const auto packed = quantize::rtn_packed(weight, {.bits = 4, .group_size = 16, .symmetric = symmetric});
    const at::Tensor step = packed->scale().repeat_interleave(16, 1);
    // A rounded zero point moves the ends of an asymmetric range by up to half a step more.
    const double most = symmetric ? 0.5 : 1.0;
    EXPECT_TRUE((packed->dequantize() - weight).abs().le(step * (most + 1e-5)).all().item<bool>());
  }
}

TEST(Rtn, WritesWhereItIsTold) {
  const at::Tensor weight = random_weight(8, 32);
  const at::Tensor out = at::empty_like(weight);
  const at::Tensor result = quantize::rtn(weight, {.bits = 3, .out = out});
  EXPECT_TRUE(result.is_same(out));
  EXPECT_TRUE(at::equal(out, quantize::rtn(weight, {.bits = 3})));
}

TEST(Rtn, PassesGradientsStraightThrough) {
  const at::Tensor weight = random_weight(4, 8).requires_grad_(true);
  const at::Tensor rounded = quantize::rtn(weight, {.bits = 3});
  EXPECT_TRUE(at::equal(rounded.detach(), quantize::rtn(weight.detach(), {.bits = 3})));
  rounded.sum().backward();
  EXPECT_TRUE(at::equal(weight.grad(), at::ones_like(weight)));
}

TEST(RtnPacked, IsAPackedWeight) {
  const at::Tensor weight = random_weight(8, 128).to(at::kBFloat16);
  for (const bool search_clip : {false, true}) {
    const quantize::RtnOptions options{.bits = 4, .group_size = 64, .search_clip = search_clip};
    const std::shared_ptr<const quantize::PackedWeight> packed = quantize::rtn_packed(weight, options);
    EXPECT_EQ(packed->sizes(), (std::vector<int64_t>{8, 128}));
    EXPECT_DOUBLE_EQ(packed->bits_per_weight(), 4.5);
    EXPECT_EQ(packed->dequantize().scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(packed->dequantize(), quantize::rtn(weight, options)));
    EXPECT_TRUE(at::equal(packed->to(c10::kCPU)->dequantize(), packed->dequantize()));
  }
}

TEST(BlockPacked, IsAPackedWeight) {
  const at::Tensor weight = random_weight(8, 320).to(at::kBFloat16);
  const auto check = [&](const at::Tensor& rounded, const std::shared_ptr<const quantize::PackedWeight>& packed,
                         double bits) {
    EXPECT_EQ(packed->sizes(), (std::vector<int64_t>{8, 320}));
    EXPECT_DOUBLE_EQ(packed->bits_per_weight(), bits);
    EXPECT_EQ(packed->dequantize().scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(packed->dequantize(), rounded));
    EXPECT_TRUE(at::equal(packed->to(c10::kCPU)->dequantize(), rounded));
  };
  check(quantize::nf4(weight), quantize::nf4_packed(weight), 4.5);
  check(quantize::fp4(weight, {.block_size = 32}), quantize::fp4_packed(weight, {.block_size = 32}), 5);
  check(quantize::fp8(weight), quantize::fp8_packed(weight), 8.1);
  check(quantize::fp8(weight, {.format = quantize::Float8::e5m2}),
        quantize::fp8_packed(weight, {.format = quantize::Float8::e5m2}), 8.1);
  check(quantize::mxfp4(weight), quantize::mxfp4_packed(weight), 4.25);
  check(quantize::nvfp4(weight), quantize::nvfp4_packed(weight), 4.5 + 32.0 / (8 * 320));
  check(quantize::ternary(weight), quantize::ternary_packed(weight), 1.6 + 32.0 / (8 * 320));
  check(quantize::ternary(weight, {.group_size = 64}), quantize::ternary_packed(weight, {.group_size = 64}), 2.1);
}

TEST(GgufPacked, IsAPackedWeight) {
  const at::Tensor weight = random_weight(6, 512).to(at::kHalf);
  for (const quantize::GgufType type : {quantize::GgufType::q8_0, quantize::GgufType::q4_k}) {
    const quantize::GgufOptions options{.type = type, .importance = at::rand({512})};
    const auto packed = quantize::gguf_packed(weight, options);
    const int64_t blocks = 512 / quantize::gguf_block_size(type);
    EXPECT_EQ(packed->sizes(), (std::vector<int64_t>{6, 512}));
    EXPECT_DOUBLE_EQ(packed->bits_per_weight(), quantize::gguf_bits_per_weight(type));
    EXPECT_DOUBLE_EQ(static_cast<double>(packed->data().size(1) * 8), packed->bits_per_weight() * 512);
    EXPECT_EQ(packed->data().size(1) % blocks, 0);
    EXPECT_TRUE(at::equal(packed->dequantize(), quantize::gguf(weight, options)));
    EXPECT_TRUE(at::equal(packed->to(c10::kCPU)->dequantize(), packed->dequantize()));
  }
}

TEST(Awq, ErrsLessThanToNearestAndPacks) {
  const at::Tensor weight = random_weight(12, 64);
  const at::Tensor x = random_weight(200, 64, 1) * at::logspace(-1, 1, 64);
  const at::Tensor gram = x.t().mm(x) / 200, absmean = x.abs().mean(0);
  const quantize::AwqOptions options{.bits = 3, .group_size = 16};
  const auto error = [&](const at::Tensor& rounded) {
    const at::Tensor change = rounded - weight;
    return change.mm(gram).mul(change).sum().item<double>();
  };
  const at::Tensor rounded = quantize::awq(weight, absmean, gram, options);
  EXPECT_LT(error(rounded), error(quantize::rtn(weight, {.bits = 3, .group_size = 16})));
  const at::Tensor scale = quantize::awq_scale({weight}, absmean, gram, options);
  EXPECT_TRUE(at::equal(quantize::awq_scaled(weight, scale, gram, options), rounded));
  const auto packed = quantize::awq_packed(weight, absmean, gram, options);
  EXPECT_TRUE(at::equal(packed->input_scale(), scale));
  EXPECT_TRUE(at::equal(packed->dequantize(), rounded));
  EXPECT_TRUE(at::equal(packed->to(c10::kCPU)->dequantize(), rounded));
  EXPECT_DOUBLE_EQ(packed->bits_per_weight(), 3 + 32.0 / 16 + 16.0 / 12);
}

TEST(Activation, ScalesEachToken) {
  const at::Tensor input = at::tensor({3.0F, 1.4F, 0.0F, -6.0F}).view({1, 2, 2});
  EXPECT_TRUE(
      at::equal(quantize::activation(input, {.bits = 2}), at::tensor({3.0F, 1.0F, 0.0F, -6.0F}).view({1, 2, 2})));
}

TEST(Errors, AreSeenBeforeAnyWork) {
  const at::Tensor weight = random_weight(4, 8);
  EXPECT_THROW(quantize::rtn(weight, {.bits = 1}), ValueError);
  EXPECT_THROW(quantize::rtn(weight, {.bits = 4, .group_size = 3}), ValueError);
  EXPECT_THROW(quantize::rtn(weight.to(at::kDouble), {.bits = 4}), TypeError);
  EXPECT_THROW(quantize::rtn(weight / 0, {.bits = 4}), ValueError);
  EXPECT_THROW(quantize::rtn_packed(weight, {.bits = 4, .out = weight}), ValueError);
  EXPECT_THROW(quantize::levels(9), ValueError);
  EXPECT_THROW(quantize::nf4(weight), ValueError);  // blocks of 64
  EXPECT_THROW(quantize::mxfp4(weight), ValueError);
  EXPECT_THROW(quantize::fp8(weight / 0), ValueError);
  EXPECT_THROW(quantize::ternary_packed(weight, {.out = weight}), ValueError);
}

}  // namespace
}  // namespace hemostat
