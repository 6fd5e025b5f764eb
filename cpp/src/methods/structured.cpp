#include <hemostat/structured.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include <fmt/format.h>

#include <hemostat/ablate.h>
#include <hemostat/error.h>

#include "axes.h"
#include "catalogue.h"
#include "declared.h"
#include "model/foreign.h"
#include "on_linears.h"

namespace hemostat {
namespace {

using structured::Ranking;

Axis parameters_axis(double most) {
  Axis axis = axes::fraction("parameters");
  axis.unit = "fraction removed";
  axis.maximum = most;
  std::erase_if(axis.default_grid, [most](double severity) { return severity > most; });
  return axis;
}

// Rows whose units are ranked once and removed at every severity.
template <typename Struct>
Method ranked(const char* name, const char* description, std::set<Need> needs,
              Ranking (*rank)(const Model&, const Statistics&, const Struct&)) {
  const auto own = [needs](const Options& options) {
    std::set<Need> all = needs;
    const auto given = options_as<Struct>(options);
    if (given.compensation == structured::Compensation::bias) {
      all.insert(Need::mean);
    } else if (given.compensation == structured::Compensation::least_squares) {
      all.insert(Need::gram);
    }
    return all;
  };
  return {.name = name,
          .kind = Kind::architecture,
          .description = description,
          .axis = parameters_axis(1),
          .needs = needs,
          .options = declared<Struct>(),
          .change =
              OnModel{.hold = [rank](const Model& model, const Statistics* statistics, const Options& options) -> Held {
                        return rank(model, *statistics, options_as<Struct>(options));
                      },
                      .change = [](const Model&, const Held& held, const Options&,
                                   double severity) { return std::any_cast<const Ranking&>(held).remove(severity); }},
          .axis_for =
              [](const Model& model, const Options& options) {
                return parameters_axis(structured::most_removable(model, options_as<Struct>(options).heads));
              },
          .needs_for = own};
}

Method llm_pruner() {
  using Struct = structured::LlmPrunerOptions;
  Method row = ranked<Struct>("llm_pruner", "leaves heads and channels out by Taylor importance", {Need::gradient_mean},
                              structured::rank_llm_pruner);
  row.axis_for = [](const Model& model, const Options& options) {
    const auto given = options_as<Struct>(options);
    if (given.granularity == structured::Granularity::channel) {
      check_has_blocks(model, "hemostat.prepare(llm_pruner)");
      return axes::fraction_of("parameters", model.config.hidden_size, model.config.hidden_size - 1);
    }
    return parameters_axis(structured::most_removable(model, given.heads, given.spare_first, given.spare_last));
  };
  row.needs_for = [base = row.needs_for](const Options& options) {
    std::set<Need> all = base(options);
    const auto taylor = options_as<Struct>(options).taylor;
    if (taylor == structured::Taylor::param_second) {
      all.erase(Need::gradient_mean);
    }
    if (taylor == structured::Taylor::param_second || taylor == structured::Taylor::param_mix) {
      all.insert(Need::gradient_square);
    }
    return all;
  };
  return row;
}

int64_t layers_of(const Model& model) {
  check_has_blocks(model, "hemostat.prepare");
  return static_cast<int64_t>(model.blocks.size());
}

Model without(const Model& model, double severity, std::vector<int64_t> order) {
  return ablate::drop_layers(model, {.count = axes::parts_at(severity, layers_of(model)), .order = std::move(order)});
}

Method shortgpt() {
  return {.name = "shortgpt",
          .kind = Kind::architecture,
          .description = "leaves out the blocks that turn the residual stream least",
          .axis = axes::fraction("layers"),
          .needs = {Need::tokens},
          .options = {},
          .change = OnModel{.hold = [](const Model& model, const Statistics* statistics, const Options&) -> Held {
                              return structured::order_by_influence(model, statistics->tokens);
                            },
                            .change =
                                [](const Model& model, const Held& held, const Options&, double severity) {
                                  return without(model, severity, std::any_cast<const std::vector<int64_t>&>(held));
                                }},
          .axis_for = [](const Model& model, const Options&) {
            return axes::fraction_of("layers", layers_of(model), std::max<int64_t>(layers_of(model) - 1, 0));
          }};
}

Method sleb() {
  using structured::GreedyOrder;
  return {
      .name = "sleb",
      .kind = Kind::architecture,
      .description = "leaves out block after block, each the one that costs least",
      .axis = axes::fraction("layers"),
      .needs = {Need::tokens},
      .options = declared<structured::SlebOptions>(),
      .change = OnModel{.hold = [](const Model& model, const Statistics* statistics, const Options& options) -> Held {
                          return GreedyOrder(model, statistics->tokens, options_as<structured::SlebOptions>(options));
                        },
                        .change =
                            [](const Model& model, const Held& held, const Options&, double severity) {
                              GreedyOrder order = std::any_cast<const GreedyOrder&>(held);
                              return without(model, severity, order.first(axes::parts_at(severity, layers_of(model))));
                            }},
      .axis_for = [](const Model& model, const Options& options) {
        const auto given = options_as<structured::SlebOptions>(options);
        const int64_t layers = layers_of(model);
        return axes::fraction_of("layers", layers,
                                 std::clamp<int64_t>(layers - given.spare_first - given.spare_last, 0, layers - 1));
      }};
}

struct ToSlice {
  at::Tensor tokens;
};

Method slicegpt() {
  return {
      .name = "slicegpt",
      .kind = Kind::architecture,
      .description = "keeps the residual stream's largest principal components",
      .axis = axes::fraction("dimensions"),
      .needs = {Need::tokens},
      .options = declared<structured::SliceGptOptions>(),
      .change = OnModel{.hold = [](const Model& model, const Statistics* statistics, const Options& options) -> Held {
                          auto none = options_as<structured::SliceGptOptions>(options);
                          none.sliced = 0;  // a model that cannot be sliced is refused before any work
                          structured::slicegpt(model, statistics->tokens, none);
                          return ToSlice{statistics->tokens};
                        },
                        .change =
                            [](const Model& model, const Held& held, const Options& options, double severity) {
                              auto given = options_as<structured::SliceGptOptions>(options);
                              given.sliced = severity;
                              return structured::slicegpt(model, std::any_cast<const ToSlice&>(held).tokens, given);
                            }},
      .axis_for = [](const Model& model, const Options& options) {
        check_has_blocks(model, "hemostat.prepare(slicegpt)");
        const int64_t hidden = model.config.hidden_size;
        const int64_t interval = std::min(options_as<structured::SliceGptOptions>(options).round_interval, hidden);
        Axis axis = axes::fraction("dimensions");
        const auto steps = [&](int64_t count) {
          return static_cast<double>(count * interval) / static_cast<double>(hidden);
        };
        axis.step = steps(1);
        axis.maximum = steps((hidden - 1) / interval);
        std::erase_if(axis.default_grid, [&](double severity) { return severity > axis.maximum; });
        for (double& severity : axis.default_grid) {
          severity = steps(std::llround(severity / axis.step));
        }
        axis.default_grid.erase(std::unique(axis.default_grid.begin(), axis.default_grid.end()),
                                axis.default_grid.end());
        std::erase(axis.default_grid, 0.0);
        return axis;
      }};
}

}  // namespace

std::vector<Method> structured_methods() {
  return {
      llm_pruner(),
      ranked<structured::FlapOptions>("flap", "leaves heads and channels out that fluctuate least",
                                      {Need::column_norm, Need::mean}, structured::rank_flap),
      ranked<structured::WandaSpOptions>("wanda_sp", "leaves heads and channels out by weight · input norm",
                                         {Need::column_norm}, structured::rank_wanda_sp),
      ranked<structured::GradientAwareOptions>("gradient_units", "leaves heads and channels out by predicted damage",
                                               {Need::gram, Need::row_fisher}, structured::rank_gradient_aware),
      shortgpt(),
      sleb(),
      slicegpt()};
}

}  // namespace hemostat
