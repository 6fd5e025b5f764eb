// Prunes half of a random matrix by magnitude, with a kernel that registered itself when the library was loaded.
#include <iostream>

#include <ATen/ops/randn.h>

#include <hemostat/prune.h>

int main() {
  const at::Tensor weight = at::randn({64, 64});
  const at::Tensor kept = hemostat::prune::magnitude(weight, {.sparsity = 0.5});
  std::cout << "kept " << kept.sum().item<int64_t>() << " of " << weight.numel() << " weights\n";
}
