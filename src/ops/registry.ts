/** @file Every op, for walks over all of them (tests, generated documentation). */
import type { Rules } from "../ir/rules.ts";
import { add } from "./add.ts";
import { attentionGradient } from "./attention-gradient.ts";
import { attention } from "./attention.ts";
import { boundary } from "./boundary.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { cast } from "./cast.ts";
import { concat } from "./concat.ts";
import { conv1d } from "./conv1d.ts";
import { conv2d } from "./conv2d.ts";
import { convTranspose2d } from "./conv-transpose2d.ts";
import { correlate2d } from "./correlate2d.ts";
import { cos } from "./cos.ts";
import { crossEntropy } from "./cross-entropy.ts";
import { dequantizeNf4 } from "./dequantize-nf4.ts";
import { div } from "./div.ts";
import { dropout } from "./dropout.ts";
import { embedding } from "./embedding.ts";
import { equal } from "./equal.ts";
import { erf } from "./erf.ts";
import { exp } from "./exp.ts";
import { gatherRows } from "./gather-rows.ts";
import { geglu } from "./geglu.ts";
import { gelu } from "./gelu.ts";
import { gemm } from "./gemm.ts";
import { groupNorm } from "./group-norm.ts";
import { inverseRms } from "./inverse-rms.ts";
import { layerNorm } from "./layer-norm.ts";
import { less } from "./less.ts";
import { linearCrossEntropy, linearCrossEntropyGradient } from "./linear-cross-entropy.ts";
import { linear } from "./linear.ts";
import { log } from "./log.ts";
import { matmul } from "./matmul.ts";
import { maximum } from "./maximum.ts";
import { mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { nf4Linear } from "./nf4-linear.ts";
import { pad } from "./pad.ts";
import { quickGelu } from "./quick-gelu.ts";
import { randomKeep } from "./random-keep.ts";
import { randomMask } from "./random-mask.ts";
import { reduceMax } from "./reduce-max.ts";
import { reduceSum } from "./reduce-sum.ts";
import { relu } from "./relu.ts";
import { reshape } from "./reshape.ts";
import { rmsNorm } from "./rms-norm.ts";
import { rope } from "./rope.ts";
import { rsqrt } from "./rsqrt.ts";
import { scatterRows } from "./scatter-rows.ts";
import { scaledMatmul } from "./scaled-matmul.ts";
import { select } from "./select.ts";
import { sigmoid } from "./sigmoid.ts";
import { silu } from "./silu.ts";
import { sin } from "./sin.ts";
import { slice } from "./slice.ts";
import { softmax } from "./softmax.ts";
import { sqrt } from "./sqrt.ts";
import { standardize } from "./standardize.ts";
import { stopGradient } from "./stop-gradient.ts";
import { sub } from "./sub.ts";
import { swiglu } from "./swiglu.ts";
import { tanh } from "./tanh.ts";
import { transpose } from "./transpose.ts";
import { upsampleNearest } from "./upsample-nearest.ts";

/** Every op by name. */
export const operators: Readonly<Record<string, { readonly rules: Rules }>> = {
  add,
  attention,
  attentionGradient,
  boundary,
  broadcastTo,
  cast,
  concat,
  conv1d,
  conv2d,
  convTranspose2d,
  correlate2d,
  cos,
  crossEntropy,
  dequantizeNf4,
  div,
  dropout,
  embedding,
  equal,
  erf,
  exp,
  gatherRows,
  geglu,
  gelu,
  gemm,
  groupNorm,
  inverseRms,
  layerNorm,
  less,
  linear,
  linearCrossEntropy,
  linearCrossEntropyGradient,
  log,
  matmul,
  maximum,
  mean,
  mul,
  neg,
  nf4Linear,
  pad,
  quickGelu,
  randomKeep,
  randomMask,
  reduceMax,
  reduceSum,
  relu,
  reshape,
  rmsNorm,
  rope,
  rsqrt,
  scaledMatmul,
  scatterRows,
  select,
  sigmoid,
  silu,
  sin,
  slice,
  softmax,
  sqrt,
  standardize,
  stopGradient,
  sub,
  swiglu,
  tanh,
  transpose,
  upsampleNearest,
};

/** Rules of every op but the leaves. */
export const registry: readonly Rules[] = Object.values(operators).map((op) => op.rules);
