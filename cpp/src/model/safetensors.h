// The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
// https://github.com/huggingface/safetensors describes it.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

namespace hemostat::safetensors {

// Views on the privately mapped, writable file, which lives as long as any of them; misaligned tensors are copied.
// The header is validated whole before anything is made of it. ValueError naming the file and the tensor.
std::map<std::string, at::Tensor> load(const std::string& path);

// A whole file of the tensors' contiguous bytes, in name order, piece by piece.
void write(const std::map<std::string, at::Tensor>& tensors,
           const std::function<void(const void* data, size_t bytes)>& output);

}  // namespace hemostat::safetensors
