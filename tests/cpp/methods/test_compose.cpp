#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/methods.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

std::vector<MethodSpec> specs(const std::vector<std::string>& texts) {
  std::vector<MethodSpec> result;
  for (const std::string& text : texts) {
    result.push_back(MethodSpec::parse(text));
  }
  return result;
}

at::Tensor weights(const Model& model) {
  std::vector<at::Tensor> all;
  for (const NamedLinear& named : linears(model)) {
    all.push_back(named.linear->dense().flatten());
  }
  return at::cat(all);
}

TEST(Compose, TheSecondChangesWhatTheFirstGave) {
  const Model model = random_model();
  const Statistics statistics = collect(model, random_tokens(4, 20));
  const Composition both = compose(model, specs({"wanda", "rtn:group_size=16"}), &statistics);
  ASSERT_EQ(both.axes.size(), 2u);
  EXPECT_EQ(both.axes[0].name, "sparsity");
  EXPECT_EQ(both.axes[1].name, "bits");
  // Back and forth, so that the kept preparation has to be made anew.
  for (const auto& [sparsity, bits] : std::vector<std::pair<double, double>>{{.3, 4}, {.3, 3}, {.6, 4}, {.3, 4}}) {
    const Model pruned = prepare(model, "wanda", &statistics).at(sparsity);
    const Model expected = prepare(pruned, "rtn", nullptr, {{"group_size", int64_t{16}}}).at(bits);
    EXPECT_TRUE(at::equal(weights(both.at({sparsity, bits})), weights(expected)));
  }
}

TEST(Compose, NeutralIsTheIdentityOfItsMethod) {
  const Model model = random_model();
  const Composition both = compose(model, specs({"magnitude", "gaussian"}));
  EXPECT_TRUE(at::equal(weights(both.at({0, 0})), weights(model)));
  EXPECT_TRUE(at::equal(weights(both.at({.5, 0})), weights(prepare(model, "magnitude").at(.5))));
  EXPECT_TRUE(at::equal(weights(both.at({0, .1})), weights(prepare(model, "gaussian").at(.1))));
  EXPECT_EQ(both.at({0, 0}).blocks[0].attention.q.weight.data_ptr(), model.blocks[0].attention.q.weight.data_ptr());
}

TEST(Compose, TakesAnyNumberOfMethods) {
  const Model model = random_model();
  const Composition one = compose(model, specs({"magnitude"}));
  EXPECT_TRUE(at::equal(weights(one.at({.5})), weights(prepare(model, "magnitude").at(.5))));
  const Composition three = compose(model, specs({"gaussian", "magnitude", "rtn"}));
  const Model noised = prepare(model, "gaussian").at(.1), pruned = prepare(noised, "magnitude").at(.5);
  for (const double bits : {4., 3.}) {
    EXPECT_TRUE(at::equal(weights(three.at({.1, .5, bits})), weights(prepare(pruned, "rtn").at(bits))));
  }
  EXPECT_TRUE(at::equal(weights(three.at({.1, 0, 3})), weights(prepare(noised, "rtn").at(3))));
}

TEST(Compose, OrderMatters) {
  const Model model = random_model();
  const at::Tensor one = weights(compose(model, specs({"magnitude", "rtn"})).at({.5, 3}));
  const at::Tensor other = weights(compose(model, specs({"rtn", "magnitude"})).at({3, .5}));
  EXPECT_FALSE(at::equal(one, other));
}

// Codes of a group always have 0 among their values, also where the range is searched or asymmetric.
TEST(Compose, QuantizingRevivesNoPrunedWeight) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Model model = random_model({.dtype = dtype});
    const Statistics statistics = collect(model, random_tokens(4, 20));
    for (const std::string pruning : {"wanda", "magnitude", "wanda:m=4"}) {
      for (const std::string quantizing :
           {"rtn", "rtn:symmetric=true", "rtn:group_size=16", "rtn:group_size=tensor",
            "rtn:group_size=16,search_clip=true", "rtn:search_clip=true,symmetric=true"}) {
        const Composition both = compose(model, specs({pruning, quantizing}), &statistics);
        const double severity = pruning == "wanda:m=4" ? 2 : .5;
        const at::Tensor pruned = weights(both.at({severity, 16})) == 0;
        EXPECT_GT(pruned.sum().item<int64_t>(), pruned.numel() / 3);
        for (const double bits : {2., 3.5, 5., 8.}) {
          const at::Tensor revived = pruned & (weights(both.at({severity, bits})) != 0);
          EXPECT_EQ(revived.sum().item<int64_t>(), 0) << pruning << ", " << quantizing << " at " << bits;
        }
      }
    }
  }
}

TEST(Compose, CountsPartsOfTheModelThatItGets) {
  const Model model = random_model({.layers = 8});
  const Composition both = compose(model, specs({"drop_layers", "drop_layers"}));
  EXPECT_EQ(both.axes[1].step, 1. / 8);
  EXPECT_EQ(both.at({.5, .5}).blocks.size(), 2u);
}

TEST(Compose, RefusesBadInputBeforeAnyWork) {
  const Model model = random_model();
  const auto message = [&](const std::vector<std::string>& methods) {
    return message_of<ValueError>([&] { compose(model, specs(methods)); });
  };
  EXPECT_EQ(message({}), "hemostat.compose: methods is empty");
  EXPECT_EQ(message({"rtn", "wanda"}),
            "hemostat.compose: wanda needs statistics (column_norm): collect them and pass them");
  const Composition both = compose(model, specs({"magnitude", "rtn"}));
  EXPECT_EQ(message_of<ValueError>([&] { both.at({.5}); }),
            "hemostat.Composition.at: got 1 severities, but there are 2 methods");
  EXPECT_EQ(message_of<ValueError>([&] { both.at({.5, 9}); }),
            "hemostat.rtn: bits is 9, but takes 2 … 8, or 16, which changes nothing");
  EXPECT_EQ(message_of<ValueError>([&] { both.at({2, 16}); }), "hemostat.magnitude: sparsity is 2, but takes 0 … 1");
}

}  // namespace
}  // namespace hemostat
