#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/calibrate.h>
#include <hemostat/error.h>
#include <hemostat/methods.h>
#include <hemostat/prune.h>
#include <hemostat/quantize.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

using Roles = std::vector<std::string>;

Linear coarser(const Linear& linear) {
  const at::Tensor weight = linear.dense();
  return linear.with_weight((weight * 4).round() / 4);
}

std::vector<Linear> all_coarser(const SharedInput& sites) {
  std::vector<Linear> linears;
  for (const Site& site : sites) {
    linears.push_back(coarser(*site.linear));
  }
  return linears;
}

// The second block is a mixture of four experts, of which each token takes two.
Model mixture() {
  Model model = random_model();
  Experts& experts = model.blocks[1].experts;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    experts.mlps.push_back(random_model({.seed = seed}).blocks[0].mlp);
  }
  experts.router.weight = random_model({.seed = 9}).head.linear.weight.narrow(0, 0, 4).contiguous();
  experts.top_k = 2;
  model.blocks[1].mlp = {};
  return model;
}

TEST(Blockwise, EachLinearSeesWhatReachesItInTheModelChangedSoFar) {
  const at::Tensor tokens = random_tokens(5, 20);
  for (const Model& model : {random_model(), mixture()}) {
    Model so_far = model;  // changed one input at a time, and calibrated on whole passes
    std::vector<std::string> seen;
    const auto change = [&](const SharedInput& sites) {
      const Statistics whole = collect(so_far, tokens, {.needs = std::set<Need>{Need::gram, Need::column_norm}});
      for (const Site& site : sites) {
        const InputStatistics& expected = whole.at(site.name);
        EXPECT_EQ(site.input->count(), expected.count()) << site.name;
        EXPECT_TRUE(at::allclose(site.input->gram(), expected.gram(), 1e-4, 1e-5)) << site.name;
        EXPECT_TRUE(at::allclose(site.input->norm(), expected.norm(), 1e-4, 1e-5)) << site.name;
        seen.push_back(site.name);
      }
      const std::set<std::string> names = [&] {
        std::set<std::string> result;
        for (const Site& site : sites) {
          result.insert(site.name);
        }
        return result;
      }();
      so_far = map_linears(so_far, {}, [&](const std::string& name, const Linear& linear) {
        return names.count(name) > 0 ? coarser(linear) : linear;
      });
      return all_coarser(sites);
    };
    const Model changed =
        calibrate_blockwise(model, tokens, {.needs = {Need::gram, Need::column_norm}, .batch = 2}, change);
    EXPECT_TRUE(at::equal(changed.forward(tokens), so_far.forward(tokens)));
    EXPECT_EQ(seen.size(), linears(model).size());
  }
}

TEST(Blockwise, StagesFollowTheOrderOfAForwardPass) {
  std::vector<std::string> roles;
  const auto change = [&](const SharedInput& sites) {
    std::string together;
    for (const Site& site : sites) {
      together += name(site.role) + " ";
    }
    roles.push_back(together);
    return all_coarser(sites);
  };
  const BlockwiseOptions options{
      .filter = {.include = {"model.layers.0.*", "*.2.mlp.down_proj", "lm_head"}, .exclude = {}}};
  calibrate_blockwise(random_model(), random_tokens(3, 9), options, change);
  EXPECT_EQ(roles, (Roles{"q k v ", "o ", "gate up ", "down ", "down ", "head "}));
}

TEST(Blockwise, UnchangedLinearsGiveTheSameModel) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(3, 9);
  const auto leave = [](const SharedInput& sites) {
    std::vector<Linear> linears;
    for (const Site& site : sites) {
      linears.push_back(*site.linear);
    }
    return linears;
  };
  const Model same = calibrate_blockwise(model, tokens, {}, leave);
  EXPECT_TRUE(at::equal(same.forward(tokens), model.forward(tokens)));
  // Nothing differs yet, so that nothing is corrected.
  const Model corrected = calibrate_blockwise(model, tokens, {.correct = 1}, leave);
  EXPECT_TRUE(at::allclose(corrected.forward(tokens), model.forward(tokens), 1e-5, 1e-5));
}

// Keeps each input of one linear.
class Inputs : public Observer {
 public:
  explicit Inputs(std::string name) : name_(std::move(name)) {}
  void linear_input(size_t, const std::vector<std::string>& names, const at::Tensor& x) override {
    if (names.front() == name_) {
      x_ = x.flatten(0, -2).to(at::kDouble);
    }
  }
  at::Tensor of(const Model& model, const at::Tensor& tokens) {
    model.forward(tokens, {.observer = this});
    return x_;
  }

 private:
  std::string name_;
  at::Tensor x_;
};

// The last linear is aimed as the formula says, computed from whole passes in float64.
void expect_corrected(const Model& model) {
  const at::Tensor tokens = random_tokens(6, 20);
  const std::string last = "model.layers.2.mlp.down_proj";
  const double alpha = 0.7, damp = 0.05;
  at::Tensor target;
  const auto change = [&](const SharedInput& sites) {
    if (sites.front().name == last) {
      target = sites.front().linear->dense();
      return std::vector<Linear>{*sites.front().linear};
    }
    return all_coarser(sites);
  };
  const Model changed =
      calibrate_blockwise(model, tokens, {.batch = 4, .correct = alpha, .correct_damp = damp}, change);

  const at::Tensor x = Inputs(last).of(model, tokens), seen = Inputs(last).of(changed, tokens);
  const double count = static_cast<double>(x.size(0));
  const at::Tensor gram = seen.t().matmul(seen) / count, cross = (x - seen).t().matmul(seen) / count;
  const at::Tensor eye = at::eye(gram.size(0), at::kDouble);
  const at::Tensor weight = model.blocks[2].mlp.down.weight.to(at::kDouble);
  const at::Tensor expected =
      weight + alpha * weight.matmul(cross).matmul(at::inverse(gram + damp * gram.diagonal().mean() * eye));
  EXPECT_GT((expected - weight).norm().item<double>(), 1e-2 * weight.norm().item<double>());
  EXPECT_TRUE(at::allclose(target.to(at::kDouble), expected, 1e-3, 1e-4));
  // It brings the output nearer to the unchanged one.
  const auto error = [&](const at::Tensor& w) {
    return (seen.matmul(w.t()) - x.matmul(weight.t())).norm().item<double>();
  };
  EXPECT_LT(error(expected), error(weight));
}

TEST(Blockwise, CorrectsTowardsTheUnchangedOutputs) {
  expect_corrected(random_model());
  Model bare = random_model();  // what a linear reads is the residual stream itself
  for (Block& block : bare.blocks) {
    block.attention_norm = block.mlp_norm = Norm{};
  }
  expect_corrected(bare);
  Model post = random_model();
  for (Block& block : post.blocks) {
    block.placement = NormPlacement::post;
  }
  expect_corrected(post);
}

TEST(Blockwise, CorrectsNothingWhereNothingArrives) {
  const Model model = random_model();
  const auto empty_attention = [](const SharedInput& sites) {
    std::vector<Linear> linears;
    for (const Site& site : sites) {
      linears.push_back(site.role == Role::v ? site.linear->with_weight(at::zeros_like(site.linear->weight))
                                             : *site.linear);
    }
    return linears;
  };
  const Model changed = calibrate_blockwise(model, random_tokens(2, 9), {.correct = 1}, empty_attention);
  EXPECT_TRUE(at::equal(changed.blocks[0].attention.o.weight, model.blocks[0].attention.o.weight));
}

TEST(Blockwise, LinearsOfSkippedSublayersReadNothing) {
  Model model = random_model();
  model.blocks[1].skip_attention = model.blocks[2].skip_mlp = true;
  size_t unread = 0;
  calibrate_blockwise(model, random_tokens(2, 9), {.needs = {Need::gram}}, [&](const SharedInput& sites) {
    unread += sites.front().input->count() == 0 ? sites.size() : 0;
    return all_coarser(sites);
  });
  EXPECT_EQ(unread, 4u + 3u);
}

TEST(Blockwise, ActivationsBeyondTheBudgetLieInFiles) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(5, 20);
  const BlockwiseOptions within{.needs = {Need::gram}, .correct = 0.5};
  BlockwiseOptions beyond = within;
  beyond.memory_budget = 0;
  EXPECT_TRUE(at::equal(calibrate_blockwise(model, tokens, within, all_coarser).forward(tokens),
                        calibrate_blockwise(model, tokens, beyond, all_coarser).forward(tokens)));
}

TEST(Blockwise, RefusesWhatCannotBe) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(2, 9);
  const auto message = [&](const BlockwiseOptions& options) {
    return message_of<ValueError>([&] { calibrate_blockwise(model, tokens, options, all_coarser); });
  };
  EXPECT_NE(message({.batch = 0}).find("batch must be at least 1"), std::string::npos);
  EXPECT_NE(message({.correct = 1.5}).find("correct is 1.5, but takes 0 to 1"), std::string::npos);
  EXPECT_NE(message({.correct = NAN}).find("correct is nan"), std::string::npos);
  EXPECT_NE(message({.correct = 1, .correct_damp = 0}).find("correct_damp is 0"), std::string::npos);
  const auto infinite = [](const SharedInput& sites) {
    std::vector<Linear> linears = all_coarser(sites);
    linears.front().weight = linears.front().weight / 0;
    return linears;
  };
  EXPECT_THROW(calibrate_blockwise(model, tokens, {}, infinite), NumericalError);
}

TEST(Sites, InputsAreThoseThatAForwardPassShares) {
  class Groups : public Observer {
   public:
    void linear_input(size_t, const std::vector<std::string>& names, const at::Tensor&) override {
      groups.insert(names);
    }
    std::set<std::vector<std::string>> groups;
  };
  for (const Model& model : {random_model(), mixture()}) {
    Groups seen;
    model.forward(random_tokens(8, 20), {.observer = &seen});
    std::set<std::vector<std::string>> listed;
    for (const SharedInput& sites : sites_of(model, {.include = {"model.*"}, .exclude = {}})) {
      std::vector<std::string> names;
      for (const Site& site : sites) {
        EXPECT_EQ(site.input_id, sites.front().input_id);
        names.push_back(site.name);
      }
      listed.insert(names);
    }
    EXPECT_EQ(listed, seen.groups);
  }
}

// A fifth expert that no token chooses.
Model with_idle_expert() {
  Model model = mixture();
  Experts& experts = model.blocks[1].experts;
  experts.mlps.push_back(random_model({.seed = 5}).blocks[0].mlp);
  experts.router.weight = at::cat({experts.router.weight, at::zeros({1, 32})});
  experts.router.bias = at::tensor({0.f, 0.f, 0.f, 0.f, -1e4f});
  return model;
}

TEST(Sites, MethodsTreatAnExpertWithoutTokensAsIfItsInputsWereAlike) {
  const Model model = with_idle_expert();
  const at::Tensor tokens = random_tokens(4, 20);
  const Statistics statistics = collect(model, tokens);
  const std::string idle = "model.layers.1.mlp.experts.4.down_proj";
  EXPECT_EQ(statistics.at(idle).count(), 0);
  EXPECT_GT(statistics.at("model.layers.1.mlp.experts.0.down_proj").count(), 0);
  const at::Tensor weight = model.blocks[1].experts.mlps[4].down.weight;
  const auto changed = [&](const std::string& method, double severity, const Options& options, bool propagate) {
    Options own = options;
    own["include"] = std::vector<std::string>{idle};
    const Propagation propagation{.tokens = tokens};
    const Model result = prepare(model, method, &statistics, own, propagate ? &propagation : nullptr).at(severity);
    return result.blocks[1].experts.mlps[4].down.dense();
  };
  const Options row{{"group_size", std::string("row")}};
  for (const bool propagate : {false, true}) {
    EXPECT_TRUE(at::equal(changed("wanda", .5, {}, propagate),
                          changed("magnitude", .5, {{"scope", std::string("row")}}, false)));
    EXPECT_TRUE(at::allclose(changed("gptq", 4, row, propagate), changed("rtn", 4, {}, false), 1e-4, 1e-5));
    EXPECT_TRUE(at::allclose(changed("svd_llm", .4, {}, propagate), changed("svd", .4, {}, false), 1e-3, 1e-4));
    EXPECT_GT(changed("sparsegpt", .5, {}, propagate).count_nonzero().item<int64_t>(), weight.numel() / 2 - 1);
    EXPECT_TRUE(changed("admm", .5, {}, propagate).isfinite().all().item<bool>());
    EXPECT_TRUE(changed("awq", 4, row, propagate).isfinite().all().item<bool>());
    EXPECT_TRUE(changed("dsnot", .5, {}, propagate).isfinite().all().item<bool>());
    EXPECT_TRUE(changed("asvd", .4, {}, propagate).isfinite().all().item<bool>());
  }
}

TEST(Propagate, MethodsRunBlockByBlockWithoutALineOfTheirOwn) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(6, 20);
  const Propagation propagation{.tokens = tokens, .batch = 4};
  for (const Method& method : methods()) {
    if (!method.on_linears()) {
      EXPECT_NE(message_of<ValueError>([&] {
                  prepare(model, method.name, nullptr, {}, &propagation);
                }).find("changes the model as a whole"),
                std::string::npos);
      continue;
    }
    Options options;
    if (method.name == "gptq" || method.name == "awq") {
      options["group_size"] = std::string("row");
    }
    if (method.name == "nf4" || method.name == "fp4") {
      options["block_size"] = int64_t{32};
    }
    const Axis axis = planned_axis(model, {method.name, options});
    const double severity = axis.default_grid.back();
    const Prepared prepared = prepare(model, method.name, nullptr, options, &propagation);
    const at::Tensor damaged = prepared.at(severity).forward(tokens);
    EXPECT_TRUE(damaged.isfinite().all().item<bool>()) << method.name;
    EXPECT_FALSE(at::equal(damaged, model.forward(tokens))) << method.name;
    EXPECT_TRUE(at::equal(prepared.at(axis.neutral).forward(tokens), model.forward(tokens))) << method.name;
    if (method.needs.empty()) {  // nothing to calibrate: as without
      EXPECT_TRUE(at::equal(damaged, prepare(model, method.name, nullptr, options).at(severity).forward(tokens)))
          << method.name;
    }
  }
}

TEST(Propagate, TheFirstBlocksQueriesAreCalibratedAsOnTheUnchangedModel) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(6, 20);
  const Propagation propagation{.tokens = tokens};
  const Statistics statistics = collect(model, tokens);
  const Model dense = prepare(model, "sparsegpt", &statistics).at(.5);
  const Model blockwise = prepare(model, "sparsegpt", nullptr, {}, &propagation).at(.5);
  EXPECT_TRUE(at::allclose(dense.blocks[0].attention.q.weight, blockwise.blocks[0].attention.q.weight, 1e-3, 1e-4));
  EXPECT_FALSE(at::allclose(dense.blocks[2].mlp.down.weight, blockwise.blocks[2].mlp.down.weight, 1e-3, 1e-4));
}

TEST(Compress, TakesMethodsInOrder) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(6, 20);
  const auto spec = [](const std::string& text) { return MethodSpec::parse(text); };
  const Propagation calibration{.tokens = tokens};
  const std::vector<MethodAtSeverity> both{{spec("wanda"), .5}, {spec("rtn:group_size=16"), 4}};

  const Statistics statistics = collect(model, tokens);
  const Model composed = compose(model, {spec("wanda"), spec("rtn:group_size=16")}, &statistics).at({.5, 4});
  EXPECT_TRUE(
      at::equal(compress(model, both, calibration, /*propagate=*/false).forward(tokens), composed.forward(tokens)));

  // One pass for both: what reaches a linear has been pruned and rounded before.
  const Model together = compress(model, both, calibration);
  const auto expected = [&](const SharedInput& sites) {
    std::vector<Linear> linears;
    for (const Site& site : sites) {
      const at::Tensor weight = site.linear->dense();
      const at::Tensor kept = prune::apply(weight, prune::wanda(weight, site.input->norm(), {.sparsity = .5}));
      linears.push_back(site.linear->with_weight(quantize::rtn(kept, {.bits = 4, .group_size = 16})));
    }
    return linears;
  };
  EXPECT_TRUE(at::equal(together.forward(tokens),
                        calibrate_blockwise(model, tokens, {.needs = {Need::column_norm}}, expected).forward(tokens)));

  // A method on models stands between two passes.
  const Model fewer =
      compress(model, {{spec("wanda"), .5}, {spec("drop_layers"), 1.0 / 3}, {spec("rtn"), 4}}, calibration);
  EXPECT_EQ(fewer.blocks.size(), 2u);
  EXPECT_EQ(message_of<ValueError>([&] { compress(model, {}, calibration); }), "hemostat.compress: methods is empty");
  EXPECT_THROW(compress(model, {{spec("wanda"), 1.5}}, calibration), ValueError);
  EXPECT_NE(message_of<ValueError>([&] {
              compress(model, both, {.tokens = tokens, .correct = .5}, /*propagate=*/false);
            }).find("takes propagate"),
            std::string::npos);
}

}  // namespace
}  // namespace hemostat
