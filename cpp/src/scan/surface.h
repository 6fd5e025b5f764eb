// What plan and scan share with surface.
#pragma once

#include <array>

#include <hemostat/scan.h>

#include "scan/trials.h"

namespace hemostat {

// Neutral first in the severities of both.
PlannedSurface with_neutral(std::array<PlannedMethod, 2> methods);

// The first method's curve, the second's, and then the second's on each model that the first gives. Takes
// `unchanged`, the baseline against itself, for the point that is neutral in both. `baseline` may be null where all
// trials are known. The statistics may be null where no method needs them.
Surface run_surface(const BaselineEvaluation* baseline, const Damage& unchanged, const Model& model,
                    const PlannedSurface& planned, const Statistics* statistics, const TrialsOptions& options);

}  // namespace hemostat
