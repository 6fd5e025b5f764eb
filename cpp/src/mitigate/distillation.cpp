#include "mitigate/distillation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/kl_div.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/statistics.h>

#include "common/token_hash.h"
#include "model/head_chunks.h"
#include "model/heap_trimmer.h"
#include "model/linears.h"

namespace hemostat::mitigate {
namespace {

constexpr double kFirstMoment = 0.9, kSecondMoment = 0.95, kEpsilon = 1e-10, kWarmUp = 0.1;

struct Trained {
  at::Tensor weight;         // float32
  at::Tensor mask;           // bool, true = trained
  at::Tensor first, second;  // float32, Adam's moments
};

// The windows, in an order of the seed's.
at::Tensor shuffled(const at::Tensor& windows, int64_t seed) {
  const at::Tensor indices = at::arange(windows.size(0), windows.options());
  return windows.index_select(0, hash(seed, {indices}).argsort());
}

class Distillation {
 public:
  Distillation(const Model& teacher, const Model& student, const DistillationOptions& options, int64_t steps)
      : student(student), teacher_(teacher), options_(options), steps_(steps) {
    MemoryBudget budget(options.memory_budget);
    this->student = map_linears(student, options.filter, [&](const std::string& name, const Linear& linear) {
      const at::Tensor weight = linear.dense().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
      const auto zeros = [&] { return budget.zeros(weight.sizes(), at::kFloat, weight.device()); };
      trained_[name] = {.weight = weight, .mask = weight.ne(0), .first = zeros(), .second = zeros()};
      return linear.with_weight(weight.to(student.dtype()));
    });
  }

  void step(const at::Tensor& windows, int64_t number) {
    rate_ = options_.learning_rate *
            std::min(1.0, static_cast<double>(number) / (kWarmUp * static_cast<double>(steps_))) * 0.5 *
            (1 + std::cos(std::numbers::pi * static_cast<double>(number) / static_cast<double>(steps_ + 1)));
    number_ = static_cast<double>(number);
    std::vector<at::Tensor> entering{embed(student, windows)};
    for (size_t block = 0; block < student.blocks.size(); ++block) {
      check_interrupt();
      entering.push_back(run_blocks(student, entering.back(), block, block + 1));
    }
    at::Tensor outgoing =
        head_gradient(run_blocks(teacher_, embed(teacher_, windows), 0, teacher_.blocks.size()), entering.back());
    for (size_t block = student.blocks.size(); block-- > 0;) {
      check_interrupt();
      outgoing = back_through(block, entering[block], outgoing);
      entering[block + 1] = at::Tensor();
    }
  }

  Model student;

 private:
  // Of the loss with respect to what leaves the student's last block.
  at::Tensor head_gradient(const at::Tensor& teaching, const at::Tensor& last) {
    const at::Tensor taught = teaching.flatten(0, 1), x = last.flatten(0, 1).detach();
    const int64_t tokens = x.size(0), step = tokens_per_chunk(teacher_, student, tokens, tokens);
    at::Tensor gradient = at::zeros_like(x);
    for (int64_t start = 0; start < tokens; start += step) {
      check_interrupt();
      const int64_t count = std::min(step, tokens - start);
      const auto predicted = [&](const Model& model, const at::Tensor& states) {
        return at::log_softmax(logits(model, apply_norm(model.final_norm, states)).to(at::kFloat), -1);
      };
      const at::Tensor target = predicted(teacher_, taught.narrow(0, start, count));
      const at::AutoGradMode with_grad(true);
      const at::Tensor part = x.narrow(0, start, count).requires_grad_(true);
      const at::Tensor loss = at::kl_div(predicted(student, part), target, at::Reduction::Sum, /*log_target=*/true);
      if (!std::isfinite(loss.item<double>())) {
        throw NumericalError("hemostat.mitigate: the distillation's loss is not finite");
      }
      (loss / static_cast<double>(tokens)).backward({}, /*retain_graph=*/false, /*create_graph=*/false, {{part}});
      gradient.narrow(0, start, count).copy_(part.grad());
    }
    return gradient.view_as(last);
  }

  at::Tensor back_through(size_t block, const at::Tensor& entering, const at::Tensor& outgoing) {
    const Model alone = block_alone(student, block);
    std::map<std::string, at::Tensor> leaves;
    at::Tensor down = outgoing;
    {
      const Model single = map_linears(alone, options_.filter, [&](const std::string& name, const Linear& linear) {
        const at::Tensor leaf = linear.dense().detach().requires_grad_(true);
        leaves[name] = leaf;
        return linear.with_weight(leaf);
      });
      const at::AutoGradMode with_grad(true);
      const at::Tensor x = entering.detach().requires_grad_(true);
      const at::Tensor y = run_blocks(single, x, 0, 1);
      if (!y.grad_fn()) {  // a block may be skipped altogether
        return down;
      }
      std::vector<at::Tensor> inputs{x};
      for (const auto& [name, leaf] : leaves) {
        inputs.push_back(leaf);
      }
      y.backward(outgoing, /*retain_graph=*/false, /*create_graph=*/false, inputs);
      down = x.grad();
    }
    const Model stepped = map_linears(alone, options_.filter, [&](const std::string& name, const Linear& linear) {
      return changed(linear, trained_.at(name), leaves.at(name).grad());
    });
    student.blocks[block] = stepped.blocks.front();
    trim_heap(down);
    return down;
  }

  Linear changed(const Linear& linear, Trained& trained, const at::Tensor& gradient) {
    if (!gradient.defined()) {
      return linear;
    }
    const at::Tensor g = gradient.to(at::kFloat).mul_(trained.mask);
    trained.first.mul_(kFirstMoment).add_(g, 1 - kFirstMoment);
    trained.second.mul_(kSecondMoment).addcmul_(g, g, 1 - kSecondMoment);
    const at::Tensor scale = (trained.second / (1 - std::pow(kSecondMoment, number_))).sqrt_().add_(kEpsilon);
    trained.weight.addcdiv_(trained.first, scale, -rate_ / (1 - std::pow(kFirstMoment, number_)));
    return linear.with_weight(trained.weight.to(linear.dense().scalar_type()));
  }

  const Model& teacher_;
  const DistillationOptions& options_;
  int64_t steps_;
  double rate_ = 0, number_ = 0;
  std::map<std::string, Trained> trained_;
};

}  // namespace

Model distilled(const Model& teacher, const Model& student, const at::Tensor& tokens,
                const DistillationOptions& options) {
  const at::Tensor windows = shuffled(checked_tokens(teacher, tokens, "hemostat.mitigate"), options.seed);
  const c10::InferenceMode off(false);
  const at::NoGradGuard no_grad;
  const int64_t steps = (windows.size(0) + options.batch - 1) / options.batch;
  Distillation distillation(teacher, student, options, steps);
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t first = i * options.batch;
    distillation.step(windows.narrow(0, first, std::min(options.batch, windows.size(0) - first)), i + 1);
    if (options.progress) {
      options.progress(i + 1, steps);
    }
  }
  return std::move(distillation.student);
}

}  // namespace hemostat::mitigate
