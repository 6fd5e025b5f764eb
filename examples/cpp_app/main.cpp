// Loads a checkpoint and token IDs, prunes by Wanda, and prints the damage. Python is never started.
//   prune_and_compare CHECKPOINT TOKENS SPARSITY
// TOKENS: a file of little-endian int64 token IDs, cut here into windows of up to 512; the first half calibrates.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ops/tensor.h>

#include <hemostat/hemostat.h>

namespace {

at::Tensor read_windows(const std::string& path, int64_t context) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto count = static_cast<int64_t>(bytes.size() / sizeof(int64_t));
  const int64_t length = std::min<int64_t>({context, 512, count / 2});
  if (!file || length < 2) {
    throw std::runtime_error(path + " must hold at least four int64 token IDs");
  }
  std::vector<int64_t> ids(static_cast<size_t>(count));
  std::copy(bytes.begin(), bytes.begin() + count * static_cast<int64_t>(sizeof(int64_t)),
            reinterpret_cast<char*>(ids.data()));
  const int64_t windows = count / length;
  return at::tensor(ids).narrow(0, 0, windows * length).view({windows, length});
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::cerr << "usage: prune_and_compare CHECKPOINT TOKENS SPARSITY\n";
    return 2;
  }
  const hemostat::Model model = hemostat::Model::load(argv[1], {.dtype = at::kFloat});
  const at::Tensor windows = read_windows(argv[2], model.config.context);
  const int64_t half = windows.size(0) / 2;
  const at::Tensor calibration = windows.narrow(0, 0, half),
                   evaluation = windows.narrow(0, half, windows.size(0) - half);

  const hemostat::Statistics statistics =
      hemostat::collect(model, calibration, {.needs = hemostat::needs_of({"wanda"})});
  const hemostat::Model pruned = hemostat::prepare(model, "wanda", &statistics).at(std::stod(argv[3]));
  const hemostat::Damage damage = hemostat::compare(model, pruned, evaluation);

  std::cout << "perplexity " << damage.perplexity_baseline << " -> " << damage.perplexity << "\n"
            << "delta NLL  " << damage.delta_nll << " nats per token";
  if (damage.delta_nll_interval) {  // none of one window
    std::cout << " [" << damage.delta_nll_interval->low << ", " << damage.delta_nll_interval->high << "]";
  }
  std::cout << "\n"
            << "KL         " << damage.kl.mean << " nats per token\n"
            << "agreement  " << damage.top1_agreement << "\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
