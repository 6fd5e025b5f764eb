// Every method of ours, one row each, in the order in which users see them. A room's rows stand in methods/<room>.cpp.
#pragma once

#include <vector>

#include <hemostat/methods.h>

namespace hemostat {

std::vector<Method> catalogue();

std::vector<Method> prune_methods();
std::vector<Method> prune_solver_methods();
std::vector<Method> prune_allocation_methods();
std::vector<Method> quantize_methods();  // of which
Method gguf_method();
std::vector<Method> block_float_methods();
std::vector<Method> lowrank_methods();
std::vector<Method> noise_methods();
std::vector<Method> ablate_methods();
std::vector<Method> structured_methods();
std::vector<Method> normalize_methods();
std::vector<Method> extend_methods();
std::vector<Method> context_methods();
std::vector<Method> decode_methods();
std::vector<Method> mitigation_methods();  // the room's own, which stands above this one

}  // namespace hemostat
