// The summary of two models' per-token predictions.
#pragma once

#include <cstdint>

#include <hemostat/metrics.h>

namespace hemostat {

// `tokens` holds [windows · targets per window] on the CPU, window by window.
Damage summarize(const metrics::TokenDivergence& tokens, int64_t windows, double unigram_nll,
                 const CompareOptions& options);

}  // namespace hemostat
