// Two models' continuations: the numbers by hand on short lists, and what compare and BaselineEvaluation make of
// models.
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <hemostat/error.h>
#include <hemostat/generate.h>
#include <hemostat/metrics.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using metrics::Continuations;
using metrics::generation_divergence;
using metrics::GenerationDivergence;
using testing::message_of;
using testing::noised;
using testing::random_model;
using testing::random_tokens;

TEST(GenerationDivergence, FindsTheFirstTokenThatDiffers) {
  const Continuations baseline = {{1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}, {5}, {}};
  const Continuations damaged = {{1, 2, 3, 4}, {1, 2, 9, 4}, {1, 2}, {6, 7}, {}};
  const GenerationDivergence found = generation_divergence(baseline, damaged, {.new_tokens = 8});
  EXPECT_EQ(found.positions, (std::vector<int64_t>{8, 2, 2, 0, 8}));  // equal ones, also of no tokens: new_tokens
  EXPECT_EQ(found.first_divergence, 4);
  EXPECT_EQ(found.first_divergence_median, 2);
  EXPECT_EQ(found.exact_match, 0.4);
  EXPECT_LE(found.first_divergence_interval->low, 4);
  EXPECT_GE(found.first_divergence_interval->high, 4);
  EXPECT_EQ(generation_divergence(baseline, damaged).positions, (std::vector<int64_t>{4, 2, 2, 0, 4}));
}

TEST(GenerationDivergence, IsNothingBetweenEqualTexts) {
  const Continuations texts = {{1, 2, 3, 4, 5}, {6, 7}};
  const GenerationDivergence found = generation_divergence(texts, texts);
  EXPECT_EQ(found.first_divergence, 5);
  EXPECT_EQ(found.first_divergence_interval->low, 5);
  EXPECT_EQ(found.exact_match, 1);
  EXPECT_EQ(found.repetition, found.repetition_baseline);
  EXPECT_EQ(found.distinct_2, found.distinct_2_baseline);
}

TEST(GenerationDivergence, CountsRepetition) {
  // 1 2 3 4 1 2 3 4: five 4-grams, one of which came before. 9 × 6: three, two came before. Too short: not counted.
  const Continuations looping = {{1, 2, 3, 4, 1, 2, 3, 4}, {9, 9, 9, 9, 9, 9}, {1, 2, 3}};
  const Continuations varied = {{1, 2, 3, 4}, {5, 6, 7, 8, 9}, {1}};
  const GenerationDivergence found = generation_divergence(varied, looping);
  EXPECT_DOUBLE_EQ(found.repetition, (1.0 / 5 + 2.0 / 3) / 2);
  EXPECT_EQ(found.repetition_baseline, 0);
  EXPECT_DOUBLE_EQ(found.distinct_1, 5.0 / 17);           // 1 2 3 4 9
  EXPECT_DOUBLE_EQ(found.distinct_2, 5.0 / 14);           // 12 23 34 41 99
  EXPECT_DOUBLE_EQ(found.distinct_1_baseline, 9.0 / 10);  // the last 1 was there
  EXPECT_DOUBLE_EQ(found.distinct_2_baseline, 1);
}

TEST(GenerationDivergence, OfNoTokensIsUndefinedWhereItDivides) {
  const GenerationDivergence found = generation_divergence({{}, {}}, {{}, {1, 2, 3}});
  EXPECT_TRUE(std::isnan(found.repetition));
  EXPECT_TRUE(std::isnan(found.repetition_baseline));
  EXPECT_TRUE(std::isnan(found.distinct_1_baseline));
  EXPECT_EQ(found.distinct_1, 1);
  EXPECT_EQ(found.positions, (std::vector<int64_t>{3, 0}));
  EXPECT_EQ(generation_divergence({{}}, {{}}).positions, (std::vector<int64_t>{0}));
}

TEST(GenerationDivergence, Refuses) {
  EXPECT_THROW(generation_divergence({}, {}), ValueError);
  EXPECT_THROW(generation_divergence({{1}}, {{1}, {2}}), ValueError);
  EXPECT_THROW(generation_divergence({{1}}, {{1}}, {.bootstrap_samples = 0}), ValueError);
  EXPECT_EQ(message_of<ValueError>([] { generation_divergence({{1, 2, 3}}, {{1}}, {.new_tokens = 2}); }),
            "hemostat.metrics.generation_divergence: new_tokens is 2, but a continuation has 3 tokens");
}

std::vector<int64_t> beginning(const at::Tensor& tokens, int64_t window, int64_t length) {
  const at::Tensor row = tokens[window].narrow(0, 0, length).contiguous();
  return {row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + length};
}

TEST(GenerationDamage, ComparesBothModelsContinuations) {
  const Model model = random_model(), damaged = noised(model, 0.1);
  const at::Tensor tokens = random_tokens(3, 40);
  const CompareOptions options{.seed = 4, .generation = {.prompts = 5, .prompt_length = 12, .new_tokens = 10}};
  const GenerationDamage damage = BaselineEvaluation(model, tokens, options).compare_generation(damaged);
  EXPECT_EQ(damage.prompts, 3);  // as many as there are windows
  EXPECT_EQ(damage.prompt_length, 12);
  EXPECT_EQ(damage.new_tokens, 10);
  EXPECT_EQ(damage.seed, 4);
  std::vector<std::vector<int64_t>> prompts;
  for (int64_t i = 0; i < 3; ++i) {
    prompts.push_back(beginning(tokens, i, 12));
  }
  const GenerateOptions generating{.max_new_tokens = 10, .seed = 4};
  const GenerationDivergence expected = generation_divergence(
      generate(model, prompts, {}, generating), generate(damaged, prompts, {}, generating), {.new_tokens = 10});
  EXPECT_EQ(damage.divergence.positions, expected.positions);
  EXPECT_EQ(damage.divergence.repetition, expected.repetition);
  EXPECT_EQ(damage.divergence.distinct_2, expected.distinct_2);
  EXPECT_LT(damage.divergence.exact_match, 1);
}

TEST(GenerationDamage, FitsTheWindowsAndTheContext) {
  Model model = random_model();
  const GenerationDamage defaults = BaselineEvaluation(model, random_tokens(20, 128)).compare_generation(model);
  EXPECT_EQ(defaults.prompts, 16);
  EXPECT_EQ(defaults.prompt_length, 32);
  EXPECT_EQ(defaults.new_tokens, 64);
  const GenerationDamage narrow = BaselineEvaluation(model, random_tokens(2, 9)).compare_generation(model);
  EXPECT_EQ(narrow.prompts, 2);
  EXPECT_EQ(narrow.prompt_length, 4);
  model.config.context = 40;
  EXPECT_EQ(BaselineEvaluation(model, random_tokens(2, 40)).compare_generation(model).new_tokens, 20);
}

TEST(GenerationDamage, IsExactlyNoneForTheSameModel) {
  Model model = random_model();
  for (const Decoder& decoder :
       {Decoder{}, Decoder{.temperature = 0.5}, Decoder{.temperature = 1, .do_sample = false}}) {
    model.decoder = decoder;
    const GenerationDamage damage = BaselineEvaluation(model, random_tokens(4, 30)).compare_generation(model);
    EXPECT_EQ(damage.divergence.exact_match, 1);
    EXPECT_EQ(damage.divergence.first_divergence, 64);
    EXPECT_EQ(damage.divergence.repetition, damage.divergence.repetition_baseline);
  }
}

TEST(GenerationDamage, EachModelDecodesItsOwnWayUnlessToldOtherwise) {
  const Model model = random_model();
  Model hotter = model;
  hotter.decoder.temperature = 3;
  const at::Tensor tokens = random_tokens(4, 30);
  EXPECT_LT(BaselineEvaluation(model, tokens).compare_generation(hotter).divergence.exact_match, 1);
  CompareOptions options;
  options.generation.decoder = Decoder{.temperature = 1, .do_sample = false};
  const BaselineEvaluation greedy(model, tokens, options);
  EXPECT_EQ(greedy.compare_generation(hotter).divergence.exact_match, 1);
  EXPECT_LT(greedy.compare_generation(noised(model, 0.3)).divergence.exact_match, 1);
}

TEST(GenerationDamage, IsPartOfDamageWhereAskedFor) {
  const Model model = random_model(), damaged = noised(model, 0.1);
  const at::Tensor tokens = random_tokens(3, 20);
  EXPECT_FALSE(compare(model, damaged, tokens).generation.has_value());
  const Damage damage = compare(model, damaged, tokens, {.generate = true});
  ASSERT_TRUE(damage.generation.has_value());
  EXPECT_EQ(damage.generation->divergence.positions,
            BaselineEvaluation(model, tokens).compare_generation(damaged).divergence.positions);
  EXPECT_EQ(damage.delta_nll, compare(model, damaged, tokens).delta_nll);
  for (const GenerationProtocol& wrong : {GenerationProtocol{.prompts = 0}, GenerationProtocol{.prompt_length = 0},
                                          GenerationProtocol{.new_tokens = 0}}) {
    EXPECT_THROW(compare(model, damaged, tokens, {.generate = true, .generation = wrong}), ValueError);
  }
}

}  // namespace
}  // namespace hemostat
