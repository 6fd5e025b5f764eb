// Which tensors of a GGUF file hold a model's, as its family's table says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <hemostat/model.h>

namespace hemostat::gguf {

struct Part {
  std::string name;  // the model's tensor
  std::vector<int64_t> sizes;
  bool adjacent;  // the file orders its rows otherwise (see row_order)
  double offset;  // the file's values are so much larger
};

// One tensor of a file: its parts' rows one after another, or the same of every expert along a dimension of its own.
struct FileTensor {
  std::string name;
  std::vector<Part> parts;
  bool experts = false;
  bool precise = false;  // float32 in every file

  std::vector<int64_t> shape() const;
};

// Of all tensors of a model, whose packed weights count as dense; a head that is the embedding has none.
std::vector<FileTensor> layout(const Model& model);

// The order of the rows of q or k: in a head's file, pairs of rows that are rotated together are neighbours; in ours
// they are half a head apart.
at::Tensor row_order(int64_t rows, int64_t head_dim, bool to_file);

}  // namespace hemostat::gguf
