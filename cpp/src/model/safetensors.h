// The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
// https://github.com/huggingface/safetensors describes it.
#pragma once

#include <map>
#include <string>

#include <ATen/core/Tensor.h>

namespace hemostat::safetensors {

// Views on the privately mapped, writable file, which lives as long as any of them; misaligned tensors are copied.
// The header is validated whole before anything is made of it. ValueError naming the file and the tensor.
std::map<std::string, at::Tensor> load(const std::string& path);

// Writes contiguous CPU bytes of the tensors in name order, to a temporary name first.
void save(const std::string& path, const std::map<std::string, at::Tensor>& tensors);

}  // namespace hemostat::safetensors
