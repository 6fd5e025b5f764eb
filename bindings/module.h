// What bindings/module.cpp calls: one function a room, each in the file of that name. A room's submodule (prune,
// quantize, …) is made by its function; what users call by the package's own name goes into the module itself.
#pragma once

#include <pybind11/pybind11.h>

namespace hemostat::bindings {

void register_solve(pybind11::module_& module);
void register_prune(pybind11::module_& module);
void register_quantize(pybind11::module_& module);
void register_block_float(pybind11::module_& room);  // called by register_quantize
void register_lowrank(pybind11::module_& module);
void register_noise(pybind11::module_& module);
void register_decode(pybind11::module_& module);
void register_model(pybind11::module_& module);
void register_model_parts(pybind11::module_& module);  // called by register_model, as is the next
void register_observer(pybind11::module_& module);
void register_foreign(pybind11::module_& module);
void register_ablate(pybind11::module_& module);
void register_structured(pybind11::module_& module);
void register_normalize(pybind11::module_& module);
void register_extend(pybind11::module_& module);
void register_context(pybind11::module_& module);
void register_generate(pybind11::module_& module);
// Called by register_metrics: the classes that Damage names, and generation_divergence in its submodule `room`.
void register_generation_damage(pybind11::module_& module, pybind11::module_& room);
void register_statistics(pybind11::module_& module);
void register_methods(pybind11::module_& module);
void register_metrics(pybind11::module_& module);
void register_axis(pybind11::module_& module);
void register_threshold(pybind11::module_& module);
void register_localize(pybind11::module_& module);
void register_scan(pybind11::module_& module);
void register_find_threshold(pybind11::module_& module);
void register_mitigate(pybind11::module_& module);
void register_pickling(pybind11::module_& module);  // after all classes
void explain_refusals(pybind11::module_& module);   // last: where arguments fit no signature, a sentence says why
void register_interrupt();                          // takes Ctrl-C into long computations

}  // namespace hemostat::bindings
