import { LorikeetError } from "../errors.ts";
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

/**
 * The next token after `history`, from its logits (V); draws one number of `random` unless greedy.
 * @throws LorikeetError `non-finite-logits`
 */
export function sampleToken(
  logits: Float32Array,
  history: Iterable<number>,
  options: SamplingOptions,
  random: Random,
): number {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  const scores = penalised(logits, history, repetitionPenalty);
  if (temperature === 0) return largest(scores);
  const peak = scores[largest(scores)]!;
  const weightOf = (id: number): number => Math.exp((scores[id]! - peak) / temperature);
  let ids = new Int32Array(scores.length).map((_, id) => id);
  if (topK > 0) ids = mostLikely(ids, scores, topK);
  if (topP < 1) ids = nucleus(ids, scores, { weightOf, p: topP });
  if (minP > 0) {
    const least = Math.min(1, minP);
    ids = descending(
      ids.filter((id) => weightOf(id) >= least),
      scores,
    );
  }
  const weights = new Float64Array(ids.length);
  for (let i = 0; i < ids.length; i++) weights[i] = weightOf(ids[i]!);
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
  let sum = 0;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id]!;
    if (score > scores[best]!) best = id;
    sum += score;
  }
  if (Number.isNaN(sum) || sum === Infinity) throw nonFinite(scores);
  return best;
}

function nonFinite(scores: Float32Array): LorikeetError {
  const id = scores.findIndex((score) => Number.isNaN(score) || score === Infinity);
  return new LorikeetError(
    "non-finite-logits",
    `Expected logits that are numbers, got ${scores[id]!} for token ${id}`,
    { hint: "The weights of the model or of its adapter are damaged, or a run diverged: download or train them again." },
  ); // prettier-ignore
}

/** The `count` of `ids` with the largest scores, largest first, and any that are as large as the last of them. */
function mostLikely(ids: Int32Array, scores: Float32Array, count: number): Int32Array<ArrayBuffer> {
  const top = leading(ids, scores, { shareOf: () => 1, wanted: count });
  const edge = scores[top[Math.min(count, top.length) - 1]!]!;
  const end = top.findLastIndex((id) => scores[id]! >= edge) + 1;
  return top.subarray(0, Math.max(count, end));
}

/** The fewest of `ids`, largest score first, whose weights reach share `p` of the sum of all. */
function nucleus(
  ids: Int32Array,
  scores: Float32Array,
  { weightOf, p }: { weightOf: (id: number) => number; p: number },
): Int32Array<ArrayBuffer> {
  const wanted = p * ids.reduce((sum, id) => sum + weightOf(id), 0);
  const top = leading(ids, scores, { shareOf: weightOf, wanted });
  let sum = 0;
  const last = top.findIndex((id) => (sum += weightOf(id)) >= wanted);
  return last < 0 ? top : top.subarray(0, last + 1);
}

/** Width of a bin of scores, and how many there are; the last takes all that is lower. */
const [BIN, BINS] = [1 / 16, 4096];

/**
 * The largest scores' ids, largest first: enough for their shares to add up to `wanted`, and few more. Sorting all of a
 * vocabulary takes longer than anything else of a token, so scores are put into bins, and only the top ones are sorted.
 */
function leading(
  ids: Int32Array,
  scores: Float32Array,
  { shareOf, wanted }: { shareOf: (id: number) => number; wanted: number },
): Int32Array<ArrayBuffer> {
  let peak = -Infinity;
  for (let i = 0; i < ids.length; i++) peak = Math.max(peak, scores[ids[i]!]!);
  const binOf = (id: number): number => Math.min(BINS - 1, Math.floor((peak - scores[id]!) / BIN));
  const sums = new Float64Array(BINS);
  for (let i = 0; i < ids.length; i++) sums[binOf(ids[i]!)]! += shareOf(ids[i]!);
  let sum = 0;
  const edge = sums.findIndex((share) => (sum += share) >= wanted);
  const isOut = (id: number): boolean => edge >= 0 && binOf(id) > edge;
  return descending(
    ids.filter((id) => !isOut(id)),
    scores,
  );
}

function descending(ids: Int32Array<ArrayBuffer>, scores: Float32Array): Int32Array<ArrayBuffer> {
  return ids.sort((a, b) => scores[b]! - scores[a]! || a - b);
}

function draw(weights: Float64Array, uniform: number): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let rest = uniform * total;
  const index = weights.findIndex((weight) => (rest -= weight) < 0);
  return index < 0 ? weights.length - 1 : index;
}
