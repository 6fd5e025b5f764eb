// All of hemostat.
#pragma once

#include <hemostat/ablate.h>
#include <hemostat/axis.h>
#include <hemostat/calibrate.h>
#include <hemostat/context.h>
#include <hemostat/decode.h>
#include <hemostat/error.h>
#include <hemostat/extend.h>
#include <hemostat/generate.h>
#include <hemostat/interrupt.h>
#include <hemostat/kernels.h>
#include <hemostat/lowrank.h>
#include <hemostat/methods.h>
#include <hemostat/metrics.h>
#include <hemostat/mitigate.h>
#include <hemostat/model.h>
#include <hemostat/noise.h>
#include <hemostat/normalize.h>
#include <hemostat/options.h>
#include <hemostat/prune.h>
#include <hemostat/quantize.h>
#include <hemostat/scan.h>
#include <hemostat/solve.h>
#include <hemostat/statistics.h>
#include <hemostat/structured.h>
#include <hemostat/threshold.h>
