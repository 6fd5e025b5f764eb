// Room `scan`: one method over its severities (sweep), two in order over a grid of theirs (surface), where a damaged
// model bleeds (localize), and methods × severities (scan).
#pragma once

#include <array>
#include <compare>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <hemostat/methods.h>
#include <hemostat/metrics.h>
#include <hemostat/threshold.h>

namespace hemostat {

// A trial is identified by (method, options, severity); `method` is MethodSpec::text(), which holds the options, a seed
// among them. Of two methods in order it names the first with its severity too, "wanda@0.3 > rtn:group_size=64", and
// the severity is the second's; where one of the two is neutral, it is the other's own trial.
struct Trial {
  std::string method;
  double severity = 0;
  Damage damage;
  double seconds = 0;          // of at(severity) and its evaluation
  double seconds_prepare = 0;  // of preparing the method, where this trial was the first to need it
};

// The damage that numerics alone do: a float32 model against itself in bfloat16, half types against float32. Where the
// other type cannot hold the weights, or gives no finite numbers, it is unknown, and covers nothing: none.
struct NoiseFloor {
  std::string against;   // the other compute type: "bfloat16", "float32"
  double delta_nll = 0;  // the farther end of |ΔNLL|'s 95 % interval, since a mean of rounding errors can come near 0
                         // by chance; one window has no interval: |ΔNLL| itself; nats per token
  double kl = 0;         // mean KL, nats per token
  double top1_agreement = 1;

  // Whether damage is no more than that: neither |ΔNLL| nor mean KL exceeds it. False for NaN.
  bool covers(const Damage& damage) const;
};

// None: unknown. NumericalError where the baseline itself is not finite.
std::optional<NoiseFloor> measure_noise_floor(const BaselineEvaluation& baseline);

// Damage as a function of severity; entries belong together, from mild to severe.
struct SweepCurve {
  std::string method;  // canonical spec
  Axis axis;
  std::vector<double> severities;
  std::vector<Damage> damages;  // within_noise_floor is set
  std::optional<NoiseFloor> noise_floor = std::nullopt;
  double seconds_prepare = 0;
  std::vector<double> seconds;  // each trial's
};

struct SweepOptions {
  // In any order, repeats once. None: the axis's default grid.
  std::optional<std::vector<double>> severities = std::nullopt;
  CompareOptions compare = {};                           // where the baseline is not evaluated yet
  std::function<void(const Trial&)> on_trial = nullptr;  // after each; may throw Interrupted
  std::optional<NoiseFloor> noise_floor = std::nullopt;  // of an earlier measurement; none: measured
  // Each severity calibrated block by block, where the method changes linears.
  std::optional<Propagation> propagation = std::nullopt;
};

// Prepares once, then at(severity) and compare for each. Nothing else takes time but the noise floor's one comparison.
// Methods whose axis is measured by generation are measured by it too (CompareOptions::generation says how).
// ValueError, before any work, for an unknown method or option, a severity out of range, or statistics that are
// missing.
SweepCurve sweep(const BaselineEvaluation& baseline, const MethodSpec& method, const Statistics* statistics = nullptr,
                 const SweepOptions& options = {});
SweepCurve sweep(const Model& model, const MethodSpec& method, const at::Tensor& tokens,
                 const Statistics* statistics = nullptr, const SweepOptions& options = {});

// The threshold of a curve by every criterion, with the edge's interval where all of its damages have their windows.
// Neutral among its severities is left out.
Threshold find_threshold(const SweepCurve& curve);

using MethodPair = std::array<MethodSpec, 2>;  // the second changes what the first gave

// What two methods in order do together: a grid over both severities. Its first row is the second method's own curve,
// its first column the first's.
struct Surface {
  std::array<std::string, 2> methods;             // canonical specs, in the order in which they are applied
  std::array<Axis, 2> axes;                       // for the unchanged model
  std::array<std::vector<double>, 2> severities;  // from mild to severe; the first of each is neutral
  std::vector<std::vector<Damage>> damages;       // [first][second]; within_noise_floor is set
  std::optional<NoiseFloor> noise_floor = std::nullopt;
  double seconds_prepare = 0;                // the first method once, the second for each of the first's severities
  std::vector<std::vector<double>> seconds;  // each trial's; 0 of the unchanged model

  // The joint zone: for each severity of the first, how far the second may go. Damage, and the most that it may be, are
  // made monotone along both axes, and then each row is read as Threshold::zone reads a curve, from what the first
  // alone does. severity, or edge, is none where that is beyond the tolerance already. Without intervals. ValueError
  // unless tolerance > 0 and finite.
  std::vector<Zone> zone(double tolerance) const;

  // (ΔNLL of the first alone + of the second alone) / ΔNLL of both: 1 where they add up, below 1 where they make each
  // other worse, above where they hide each other. None where one of them is neutral, where the interval of both holds
  // 0 (one window has none), or where a number is not finite.
  std::vector<std::vector<std::optional<double>>> additivity() const;
};

struct SurfaceOptions {
  // Of each method, in any order; neutral is added. None: the axis's default grid.
  std::array<std::optional<std::vector<double>>, 2> severities = {};
  CompareOptions compare = {};                           // where the baseline is not evaluated yet
  std::function<void(const Trial&)> on_trial = nullptr;  // after each; may throw Interrupted
  std::optional<NoiseFloor> noise_floor = std::nullopt;  // of an earlier measurement; none: measured
};

// Prepares the first method once, and the second on each model that the first gives; one evaluation for each point but
// the unchanged model. Points are measured by generation too where a method takes part whose axis is measured by it.
// `statistics` are the unchanged model's. ValueError, before any work, as in sweep.
Surface surface(const BaselineEvaluation& baseline, const MethodPair& methods, const Statistics* statistics = nullptr,
                const SurfaceOptions& options = {});
Surface surface(const Model& model, const MethodPair& methods, const at::Tensor& tokens,
                const Statistics* statistics = nullptr, const SurfaceOptions& options = {});

// A part of the model, damaged alone.
struct LocalizedSite {
  std::string name = {};  // as checkpoints spell it: "model.layers.3", a linear's full name
  // Its index in the model; none: the embedding, final norm or head, or a foreign module's linear.
  std::optional<int64_t> block = std::nullopt;
  std::optional<std::string> linear = std::nullopt;  // of a linear within its block: "mlp.down_proj"
  double delta_nll = 0;                              // nats per token, of `damage` or predicted
  std::optional<Damage> damage = std::nullopt;       // none: predicted
  // Relative error of the residual stream right after the block: ‖h′ − h‖/‖h‖, Frobenius norms over all tokens. None
  // for the final norm and the head, which change none.
  std::optional<double> error = std::nullopt;
  std::optional<double> cascade_gain = std::nullopt;  // error after the last block / error; none where error is 0
  // What isotropic noise as large as the change does there (isotropic_control): damage far above it comes from where
  // the change points, not from how large it is. None where no weight changed, or it is predicted.
  std::optional<Damage> control = std::nullopt;
  std::optional<double> noise_delta_nll = std::nullopt;  // nats per token, of `control` or predicted
};

// Where a damaged model bleeds.
struct Localization {
  std::string method;                          // canonical spec; empty: two models were given
  double severity = 0;                         // NaN where two models were given
  std::vector<LocalizedSite> sites;            // in the model's order
  double delta_nll = 0;                        // nats per token: `whole`'s, or what is predicted of all sites together
  std::optional<Damage> whole = std::nullopt;  // of the damaged model with all of its parts; none: predicted
  // Σ of the sites' ΔNLL / the whole's: 1 where the parts add up, above 1 where they hide each other, below where they
  // make each other worse. None where the whole's interval of ΔNLL holds 0, or a number is not finite.
  std::optional<double> additivity = std::nullopt;
  std::optional<double> additivity_kl = std::nullopt;  // the same of mean KL; none where the whole's is 0
  // [L + 1]: the whole's relative error before each block and after the last; empty of a foreign module, or predicted.
  std::vector<double> layer_error;
  std::vector<double> cascade_gain;  // [L]: layer_error[l + 1]/layer_error[l], NaN where that is 0; or empty
  double seconds = 0;
};

struct LocalizeOptions {
  // Each linear within each block alone, instead of each block. Of a foreign module each linear, whatever this says.
  bool linears = false;
  bool control = true;  // false: no isotropic noise, half the time
  // batch, unigram, byte_count, bootstrap_samples; seed is also that of the noise's directions. memory_budget holds the
  // baseline's logits of one batch, which are computed anew for each site where they do not fit. progress counts
  // windows, of the whole model and of each site that changed.
  CompareOptions compare = {};
};

// The baseline with isotropic Gaussian noise (noise::isotropic) in place of each linear's change, of the same Frobenius
// norm and with its own direction. None where no weight changed: the linears' inputs, norms and the like don't count.
std::optional<Model> isotropic_control(const Model& baseline, const Model& damaged, int64_t seed = 0);

// Puts each part of the damaged model that differs into the baseline alone: each block (or each linear within it), and
// the embedding, the final norm and the head where they changed. Windows are taken batch by batch; of each batch the
// baseline's residual stream is computed once and kept for every block, so that a site at block l costs L − l blocks
// and the head. Blocks that did not change are sites too, and have no damage.
// ValueError, before any evaluation, where the damaged model's blocks are not the baseline's, changed in place: other
// in number, order or width, or with other input or decoding; and with `linears` where a block changed, but none of its
// linears.
Localization localize(const Model& baseline, const Model& damaged, const at::Tensor& tokens,
                      const LocalizeOptions& options = {});

// The same of a method at a severity, prepared once. Methods that change what the model reads or how it decodes, or are
// measured by generation, are refused before any work, and what sweep refuses too.
Localization localize(const Model& model, const MethodSpec& method, const at::Tensor& tokens, double severity,
                      const Statistics* statistics = nullptr, const LocalizeOptions& options = {});

struct LocalizePredictedOptions {
  bool linears = false;  // each linear within each block, instead of each block
  bool control = true;   // also what is predicted of isotropic noise
};

// Where it bleeds by predicted damage (predicted_damage, methods.h), without an evaluation: a site's is the sum over
// its linears, and the whole's the sum over all of them. Isotropic noise of the same norm as ΔW [out, in] is predicted
// to cost ½ ‖ΔW‖²/(out·in) · Σ_r f_r · tr G. `judge` holds G and f, of other text than the method was calibrated on,
// which flatters it. ValueError where blocks are not changed in place, where other things than weights change, and
// where judge has no gram or no row_fisher.
Localization localize_predicted(const Model& baseline, const Model& damaged, const Statistics& judge,
                                const LocalizePredictedOptions& options = {});
Localization localize_predicted(const Model& model, const MethodSpec& method, double severity,
                                const Statistics* statistics, const Statistics& judge,
                                const LocalizePredictedOptions& options = {});

// What a scan measures of the unchanged model.
struct ScanBaseline {
  Damage damage;  // against itself: its perplexity, and no index where it is no better than the unigram
  std::optional<NoiseFloor> noise_floor = std::nullopt;
};

struct ScanOptions {
  // Pairs to measure together, each on the grid of its methods' severities: its edges are trials of each alone, and
  // those that a curve has too are run once.
  std::vector<MethodPair> joint = {};
  std::map<std::string, std::vector<double>> severities = {};  // by method spec; other methods take their default grid
  std::optional<int64_t> points = std::nullopt;  // at most so many severities of a default grid, spread over it
  CompareOptions compare = {};                   // without unigram counts: those of the calibration tokens
  double memory_budget = 1024.0 * 1024 * 1024;   // bytes for the baseline's logits and the statistics together
  // Of an earlier run with the same settings: not measured again, and nothing is evaluated where all else is known too.
  std::optional<ScanBaseline> baseline = std::nullopt;
  std::function<void(const ScanBaseline&)> on_baseline = nullptr;  // once measured, before the trials
  // The trial, where it is finished already: by an earlier run, or by another program meanwhile. Asked for each at the
  // start, and again when its turn comes; what it gives is taken as it is.
  std::function<std::optional<Trial>(const std::string& method, double severity)> known = nullptr;
  std::function<void(const Trial&)> on_trial = nullptr;  // after each one that was run; may throw Interrupted
  // Each method that changes blocks in place is localized after its curve, on the first so many windows, at the mildest
  // measured severity that costs more than 0.1 nats per token, else the farthest (of those that have not collapsed: a
  // method without any is not localized). 0: none is.
  int64_t localize_windows = 0;
  // As `known`, for each method whose trials are finished, at that severity.
  std::function<std::optional<Localization>(const std::string& method, double severity)> known_localization = nullptr;
  // Calibrate methods on linears block by block, a pass over the calibration tokens for each of their trials.
  bool propagate = false;
  double correct = 0, correct_damp = Propagation().correct_damp;  // with that; see Propagation
  // As on_trial. One without sites says that the damaged model cannot be localized, and stays out of the result.
  std::function<void(const Localization&)> on_localization = nullptr;
  // `stage` is "baseline", "noise floor" or "statistics" (counting windows), then "trials" (of all methods), and after
  // each method's trials "localize" (counting windows of its sites); called after every batch of windows, so counts may
  // repeat. May throw Interrupted.
  std::function<void(const std::string& stage, int64_t done, int64_t total)> progress = nullptr;
};

struct ScanResult {
  Damage baseline;  // as ScanBaseline's
  std::optional<NoiseFloor> noise_floor = std::nullopt;
  std::vector<SweepCurve> curves;           // in the methods' order
  std::vector<Localization> localizations;  // likewise, of the methods that are localized
  std::vector<Surface> surfaces;            // in the order of ScanOptions::joint
};

// The severities a scan gives each method, in order: the plan. Prepares nothing. ValueError as in sweep, and for a
// method that is listed twice or severities of one that is not listed.
struct PlannedMethod {
  MethodSpec method;
  std::vector<double> severities;
  Axis axis;
};
std::vector<PlannedMethod> plan(const Model& model, const std::vector<MethodSpec>& methods,
                                const ScanOptions& options = {});

// What a trial is known by.
struct TrialName {
  std::string method;
  double severity = 0;
  auto operator<=>(const TrialName&) const = default;
};

// The same for each of ScanOptions::joint; severities of both begin with neutral. ValueError for a pair that is listed
// twice.
struct PlannedSurface {
  std::array<PlannedMethod, 2> methods;

  // What the point's trial is known by; none where both are neutral, which is no trial.
  std::optional<TrialName> trial(size_t first, size_t second) const;
};
std::vector<PlannedSurface> plan_joint(const Model& model, const ScanOptions& options);

// methods × severities, then the pairs of options.joint; statistics are collected from `calibration` [windows, length]
// once, for all of them, and one method's preparation is released before the next. `calibration` may be undefined or
// empty where no method needs statistics; else ValueError, before any work.
ScanResult scan(const Model& model, const at::Tensor& evaluation, const at::Tensor& calibration,
                const std::vector<MethodSpec>& methods, const ScanOptions& options = {});

}  // namespace hemostat
