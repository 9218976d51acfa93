import type { Random } from "../tensor/random.ts";

/** How the next token is chosen. Defaults: greedy. Meanings and order of application are transformers'. */
export interface SamplingOptions {
  /** Divides the logits; 0: always the most likely token. */
  readonly temperature?: number;
  /** Only the k most likely tokens; 0: all. */
  readonly topK?: number;
  /** Only the most likely tokens whose probabilities add up to p. https://arxiv.org/abs/1904.09751 */
  readonly topP?: number;
  /** Only tokens at least this share as likely as the most likely one. https://arxiv.org/abs/2407.01082 */
  readonly minP?: number;
  /** Above 1: tokens that occurred get less likely. https://arxiv.org/abs/1909.05858 */
  readonly repetitionPenalty?: number;
}

/** The next token after `history`, from its logits (V); draws one number of `random` unless greedy. */
export function sampleToken(
  logits: Float32Array,
  history: Iterable<number>,
  options: SamplingOptions,
  random: Random,
): number {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  const scores = penalised(logits, history, repetitionPenalty);
  if (temperature === 0) return largest(scores);
  let tokens = topK > 0 ? mostLikely(scores, topK) : undefined;
  if (!tokens && (topP < 1 || minP > 0)) tokens = mostLikely(scores, scores.length);
  const ids = tokens ?? Int32Array.from(scores.keys());
  const peak = scores[tokens ? ids[0]! : largest(scores)]!;
  let weights = Float64Array.from(ids, (id) => Math.exp((scores[id]! - peak) / temperature));
  if (topP < 1) weights = weights.subarray(0, nucleusSize(weights, topP));
  if (minP > 0)
    weights = weights.subarray(
      0,
      Math.max(1, weights.findLastIndex((weight) => weight >= minP) + 1),
    );
  return ids[draw(weights, random.uniform())]!;
}

function penalised(logits: Float32Array, history: Iterable<number>, penalty: number): Float32Array {
  if (penalty === 1) return logits;
  const scores = logits.slice();
  for (const id of new Set(history))
    scores[id] = scores[id]! < 0 ? scores[id]! * penalty : scores[id]! / penalty;
  return scores;
}

function largest(scores: Float32Array): number {
  let best = 0;
  for (let id = 1; id < scores.length; id++) if (scores[id]! > scores[best]!) best = id;
  return best;
}

/** Ids of the `count` largest scores, largest first. */
function mostLikely(scores: Float32Array, count: number): Int32Array {
  const order = Int32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
  return order.subarray(0, count);
}

/** How many of the descending `weights` it takes to reach share `p` of their sum. */
function nucleusSize(weights: Float64Array, p: number): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  const index = weights.findIndex((weight) => (sum += weight) >= p * total);
  return index < 0 ? weights.length : index + 1;
}

function draw(weights: Float64Array, uniform: number): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let rest = uniform * total;
  const index = weights.findIndex((weight) => (rest -= weight) < 0);
  return index < 0 ? weights.length - 1 : index;
}
