#include "statistics/products.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/mm.h>

#include "kernels/isa.h"

namespace hemostat {
namespace {

constexpr int64_t kGramBlock = 256;           // of float32: larger triangles are halved
constexpr int64_t kTile = 64, kDepth = 1024;  // of bfloat16: what stays in a core's caches
enum class Part { whole, lower };

bool in_bfloat16(const at::Tensor& sum, const at::Tensor& rows) {
  return rows.scalar_type() == at::kBFloat16 && rows.is_cpu() && sum.is_contiguous() && kernels::multiplies_bfloat16();
}

// Tiles of the product, each a dot product over pairs of tokens at a time.
void add_tiles(const at::Tensor& sum, const at::Tensor& left, const at::Tensor& right, Part part) {
  const auto even = [](const at::Tensor& rows) {
    return rows.size(0) % 2 == 0 ? rows : at::constant_pad_nd(rows, {0, 0, 0, 1});
  };
  const at::Tensor columns = even(left).t().contiguous(), rows = even(right);
  const int64_t tokens = rows.size(0), m = columns.size(0), n = rows.size(1);
  const at::Tensor pairs = rows.reshape({tokens / 2, 2, n}).transpose(1, 2).contiguous();
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t i = 0; i < m; i += kTile) {
    for (int64_t j = 0; j < n && (part == Part::whole || j <= i); j += kTile) {
      tiles.emplace_back(i, j);
    }
  }
  const auto* a = columns.const_data_ptr<at::BFloat16>();
  const auto* b = pairs.const_data_ptr<at::BFloat16>();
  auto* c = sum.mutable_data_ptr<float>();
  for (int64_t token = 0; token < tokens; token += kDepth) {
    const int64_t depth = std::min(kDepth, tokens - token);
    at::parallel_for(0, static_cast<int64_t>(tiles.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        const auto [i, j] = tiles[tile];
        at::native::cpublas::brgemm(std::min(kTile, m - i), std::min(kTile, n - j), depth, tokens, n, n,
                                    /*add_C=*/true, a + i * tokens + token, b + token * n + 2 * j, c + i * n + j);
      }
      at::native::cpublas::brgemm_release();
    });
  }
}

void add_in_float(const at::Tensor& sum, const at::Tensor& left, const at::Tensor& right) {
  if (sum.device() == left.device()) {
    at::Tensor(sum).addmm_(left.t(), right);
  } else {
    sum.add_(at::mm(left.t(), right).to(sum.device()));
  }
}

// By halves, because square products run at full speed.
void add_triangle(const at::Tensor& sum, const at::Tensor& rows) {
  const int64_t features = rows.size(1), half = features / 2;
  if (features <= kGramBlock) {
    add_in_float(sum, rows, rows);
    return;
  }
  const at::Tensor left = rows.narrow(1, 0, half), right = rows.narrow(1, half, features - half);
  const at::Tensor below = sum.narrow(0, half, features - half);
  add_triangle(sum.narrow(0, 0, half).narrow(1, 0, half), left);
  add_triangle(below.narrow(1, half, features - half), right);
  add_in_float(below.narrow(1, 0, half), right, left);
}

}  // namespace

void add_products(const at::Tensor& sum, const at::Tensor& left, const at::Tensor& right) {
  if (in_bfloat16(sum, left)) {
    add_tiles(sum, left, right, Part::whole);
  } else {
    add_in_float(sum, left.to(at::kFloat), right.to(at::kFloat));
  }
}

void add_gram(const at::Tensor& sum, const at::Tensor& rows) {
  if (in_bfloat16(sum, rows)) {
    add_tiles(sum, rows, rows, Part::lower);
  } else {
    add_triangle(sum, rows.to(at::kFloat));
  }
}

}  // namespace hemostat
