// The generation loop against forward() without a cache, and its random numbers against the distribution they stand
// for.
#include <hemostat/generate.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <hemostat/error.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using testing::message_of;
using testing::noised;
using testing::random_model;
using testing::random_tokens;
using Tokens = std::vector<int64_t>;

constexpr Decoder kGreedy{.temperature = 1, .do_sample = false};

Tokens tokens_of(const at::Tensor& row) {
  const at::Tensor whole = row.contiguous();
  return {whole.const_data_ptr<int64_t>(), whole.const_data_ptr<int64_t>() + whole.numel()};
}

// Prompts of different lengths, several of each.
std::vector<Tokens> some_prompts() {
  const at::Tensor tokens = random_tokens(9, 12);
  std::vector<Tokens> prompts;
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    prompts.push_back(tokens_of(tokens[i].narrow(0, 0, 1 + (i * 5) % 12)));
  }
  return prompts;
}

// The most likely tokens by forward() on the whole text each time.
Tokens without_cache(const Model& model, Tokens text, int64_t new_tokens) {
  Tokens continuation;
  for (int64_t i = 0; i < new_tokens; ++i) {
    const at::Tensor logits = model.forward(at::tensor(text, at::kLong))[0][-1];
    text.push_back(logits.argmax().item<int64_t>());
    continuation.push_back(text.back());
  }
  return continuation;
}

TEST(Generate, TakesTheMostLikelyToken) {
  const Model model = random_model();
  const std::vector<Tokens> prompts = some_prompts();
  const auto continuations = generate(model, prompts, kGreedy, {.max_new_tokens = 20});
  ASSERT_EQ(continuations.size(), prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(continuations[i], without_cache(model, prompts[i], 20)) << "prompt " << i;
  }
  EXPECT_EQ(generate(model, prompts, {.temperature = 3, .do_sample = false}, {.max_new_tokens = 20}), continuations);
}

TEST(Generate, SeesWhatForwardSees) {
  Model model = random_model();
  model.blocks[1].attention.window = 5;
  model.blocks[1].attention.sinks = 2;
  model.blocks[2].attention.cache.bits = 4;
  model.input = {TokenNoise::swap, 0.3, 5};
  const std::vector<Tokens> prompts = some_prompts();
  const auto continuations = generate(model, prompts, kGreedy, {.max_new_tokens = 16});
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(continuations[i], without_cache(model, prompts[i], 16)) << "prompt " << i;
  }
}

TEST(Generate, BatchesAlterNothing) {
  const Model model = random_model();
  const std::vector<Tokens> prompts = some_prompts();
  for (const Decoder& decoder : {kGreedy, Decoder{}, Decoder{.temperature = 0.6}}) {
    const auto together = generate(model, prompts, decoder, {.max_new_tokens = 24, .seed = 5});
    for (const int64_t batch : {1, 2, 3}) {
      EXPECT_EQ(generate(model, prompts, decoder, {.max_new_tokens = 24, .seed = 5, .batch = batch}), together);
    }
  }
}

TEST(Generate, ShorterIsABeginning) {
  const Model model = random_model();
  const auto longer = generate(model, some_prompts(), {}, {.max_new_tokens = 20, .seed = 2});
  const auto shorter = generate(model, some_prompts(), {}, {.max_new_tokens = 7, .seed = 2});
  for (size_t i = 0; i < longer.size(); ++i) {
    EXPECT_EQ(shorter[i], Tokens(longer[i].begin(), longer[i].begin() + 7));
  }
}

TEST(Generate, StopsAtTheEndOfText) {
  Model model = random_model();
  const std::vector<Tokens> prompts = some_prompts();
  const auto endless = generate(model, prompts, {}, {.max_new_tokens = 30});
  const int64_t eos = endless[0][3], other = endless[1][8];
  model.config.eos_token_ids = {eos, other};
  const auto ended = generate(model, prompts, {}, {.max_new_tokens = 30});
  for (size_t i = 0; i < prompts.size(); ++i) {
    Tokens expected;
    for (const int64_t token : endless[i]) {
      expected.push_back(token);
      if (token == eos || token == other) {
        break;
      }
    }
    EXPECT_EQ(ended[i], expected) << "prompt " << i;
  }
  EXPECT_LE(ended[0].size(), 4);
  EXPECT_EQ(generate(model, prompts, {}, {.max_new_tokens = 30, .eos_token_ids = Tokens{}}), endless);
  EXPECT_EQ(generate(model, {prompts[0]}, {}, {.max_new_tokens = 30, .eos_token_ids = Tokens{endless[0][0]}})[0].size(),
            1);
}

// Pearson's statistic of counts against expected probabilities.
double chi_square(const at::Tensor& counts, const at::Tensor& probabilities) {
  const at::Tensor expected = probabilities.to(at::kDouble) * counts.sum().to(at::kDouble);
  return ((counts.to(at::kDouble) - expected).square() / expected).sum().item<double>();
}

constexpr double kChiSquare12 = 32.91;  // exceeded by one sample in a thousand, 12 degrees of freedom

TEST(Generate, SamplesFromTheSoftmax) {
  const Model model = random_model({.layers = 1, .vocab = 13});
  const Tokens prompt = {3, 1, 4};
  const at::Tensor logits = model.forward(at::tensor(prompt, at::kLong))[0][-1].to(at::kDouble);
  for (const double temperature : {0.7, 1.0, 2.0}) {
    const at::Tensor expected = at::softmax(logits / temperature, -1);
    constexpr int64_t kSeeds = 3000;
    ASSERT_GT(expected.min().item<double>() * kSeeds, 5);  // the statistic's own condition
    const Decoder decoder{.temperature = temperature};

    const std::vector<Tokens> copies(20000, prompt);  // each with its own index
    const auto by_index = generate(model, copies, decoder, {.max_new_tokens = 1, .seed = 7, .batch = 5000});
    std::vector<int64_t> counts(13);
    for (const Tokens& tokens : by_index) {
      counts.at(tokens.at(0)) += 1;
    }
    EXPECT_LT(chi_square(at::tensor(counts), expected), kChiSquare12) << "over prompts, temperature " << temperature;

    counts.assign(13, 0);
    for (int64_t seed = 0; seed < kSeeds; ++seed) {
      counts.at(generate(model, {prompt}, decoder, {.max_new_tokens = 1, .seed = seed}).at(0).at(0)) += 1;
    }
    EXPECT_LT(chi_square(at::tensor(counts), expected), kChiSquare12) << "over seeds, temperature " << temperature;
  }
}

TEST(Generate, SamplesAnewAtEachPosition) {
  Model model = random_model({.layers = 0, .vocab = 13});
  model.embedding = model.embedding[0].expand({13, 32}).contiguous();  // every token predicts the same
  model.config.context = 10001;
  const at::Tensor expected = at::softmax(model.forward(at::zeros({1, 1}, at::kLong))[0][0].to(at::kDouble), -1);
  std::vector<int64_t> counted(13), paired(13 * 13);
  int64_t previous = -1;
  const std::vector<Tokens> texts = generate(model, {{0}}, {}, {.max_new_tokens = 10000});
  for (const int64_t token : texts.at(0)) {
    counted.at(token) += 1;
    if (previous >= 0) {
      paired.at(previous * 13 + token) += 1;
    }
    previous = token;
  }
  EXPECT_LT(chi_square(at::tensor(counted), expected), kChiSquare12);
  // neighbours are independent: 168 degrees of freedom, 99.9 % below 230
  EXPECT_LT(chi_square(at::tensor(paired), at::outer(expected, expected).flatten()), 230);
}

TEST(Generate, EqualModelsSampleEqualTextAndSimilarOnesStayTogether) {
  const Model model = random_model();
  const std::vector<Tokens> prompts(40, Tokens{5, 6, 7});
  const auto text = [&](const Model& writer, int64_t seed, double temperature = 1) {
    return generate(writer, prompts, {.temperature = temperature}, {.max_new_tokens = 10, .seed = seed});
  };
  const auto shared_beginning = [](const std::vector<Tokens>& a, const std::vector<Tokens>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      sum += std::mismatch(a[i].begin(), a[i].end(), b[i].begin(), b[i].end()).first - a[i].begin();
    }
    return sum / static_cast<double>(a.size());
  };
  const auto written = text(model, 1);
  EXPECT_EQ(text(random_model(), 1), written);
  EXPECT_NE(written[0], written[1]);  // of equal prompts
  EXPECT_LT(shared_beginning(written, text(model, 2)), 1.5);
  EXPECT_GT(shared_beginning(written, text(noised(model, 0.01), 1)), 5);
  EXPECT_GT(shared_beginning(written, text(model, 1, 1.05)), 4);
  EXPECT_LT(shared_beginning(written, text(model, 1, 3)), shared_beginning(written, text(model, 1, 1.2)));
}

TEST(Generate, ColdIsGreedyAndHotIsUniform) {
  const Model model = random_model();
  const std::vector<Tokens> prompts = some_prompts();
  EXPECT_EQ(generate(model, prompts, {.temperature = 1e-4}, {.max_new_tokens = 12}),
            generate(model, prompts, kGreedy, {.max_new_tokens = 12}));
  const auto hot = generate(model, {{1}}, {.temperature = 1e6}, {.max_new_tokens = 120})[0];
  EXPECT_GT(std::set<int64_t>(hot.begin(), hot.end()).size(), 55);  // 120 of 97 tokens: 69 expected
}

TEST(Generate, EqualLogitsGiveTheLowestIndex) {
  Model model = random_model();
  model.head.linear.weight = at::zeros_like(model.head.linear.weight);
  EXPECT_EQ(generate(model, {{4, 2}}, kGreedy, {.max_new_tokens = 3})[0], (Tokens{0, 0, 0}));
  model.head.linear.bias = at::zeros({97});
  model.head.linear.bias[41] = model.head.linear.bias[60] = 1;
  EXPECT_EQ(generate(model, {{4, 2}}, kGreedy, {.max_new_tokens = 3})[0], (Tokens{41, 41, 41}));
}

TEST(Generate, ACollapsedModelStillWrites) {
  Model model = random_model();
  model.head.linear.weight = at::full_like(model.head.linear.weight, std::numeric_limits<double>::quiet_NaN());
  for (const Decoder& decoder : {kGreedy, Decoder{}}) {
    EXPECT_EQ(generate(model, {{4, 2}}, decoder, {.max_new_tokens = 2})[0], (Tokens{0, 0}));
  }
}

TEST(Generate, HalfTypes) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const Model model = random_model({.dtype = dtype});
    const auto greedy = generate(model, some_prompts(), kGreedy, {.max_new_tokens = 1});
    for (size_t i = 0; i < greedy.size(); ++i) {
      EXPECT_EQ(greedy[i], without_cache(model, some_prompts()[i], 1));
    }
    EXPECT_EQ(generate(model, some_prompts(), {}, {.max_new_tokens = 5, .batch = 1}).size(), 9);
  }
}

TEST(Generate, NoPromptsNoText) { EXPECT_TRUE(generate(random_model(), {}, {}, {.max_new_tokens = 3}).empty()); }

TEST(Generate, RefusesBeforeAnyWork) {
  const Model model = random_model();
  const auto message = [&](const std::vector<Tokens>& prompts, const GenerateOptions& options,
                           const Decoder& decoder = {}) {
    return message_of<ValueError>([&] { generate(model, prompts, decoder, options); });
  };
  EXPECT_EQ(message({{1}, {}}, {.max_new_tokens = 1}),
            "hemostat.generate: prompts[1] is empty, but takes at least one token");
  EXPECT_EQ(message({{1}, {2, 97}}, {.max_new_tokens = 1}),
            "hemostat.generate: prompts[1] has the ID 97, but the vocabulary takes 0 … 96");
  EXPECT_NE(message({{-1}}, {.max_new_tokens = 1}).find("has the ID -1"), std::string::npos);
  EXPECT_EQ(message({Tokens(100, 1)}, {.max_new_tokens = 29}),
            "hemostat.generate: prompts[0] has 100 tokens, which with max_new_tokens = 29 exceed the context of 128");
  EXPECT_EQ(message({Tokens(100, 1)}, {.max_new_tokens = 28}), "");
  EXPECT_NE(message({{1}}, {.max_new_tokens = std::numeric_limits<int64_t>::max()}).find("context"), std::string::npos);
  EXPECT_EQ(message({{1}}, {}), "hemostat.generate: max_new_tokens is 0, but takes at least 1");
  EXPECT_EQ(message({{1}}, {.max_new_tokens = 1, .batch = 0}), "hemostat.generate: batch is 0, but takes at least 1");
  EXPECT_NE(message({{1}}, {.max_new_tokens = 1, .eos_token_ids = Tokens{97}}).find("eos_token_id has the ID 97"),
            std::string::npos);
  for (const double temperature :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    EXPECT_NE(message({{1}}, {.max_new_tokens = 1}, {.temperature = temperature}).find("must be positive and finite"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace hemostat
