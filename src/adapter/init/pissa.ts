import type { LoraSite } from "../../passes/lora.ts";
import {
  type Dense,
  scaleColumns,
  scaleRows,
  type Singular,
  topSingular,
  transposed,
} from "../linear-algebra.ts";
import { randomisedSvd } from "./randomised-svd.ts";

/**
 * PiSSA: A = √(S/scale)·Vᵀ and B = U·√(S/scale) of the largest r singular values of W (out, in); `pissa_niter_N` finds
 * them with N rounds of subspace iteration from a random start that the layer's `name` selects.
 * https://arxiv.org/abs/2404.02948
 */
export function pissaInit(
  matrix: Dense,
  { rank, scale }: LoraSite,
  { init, name }: { init: string; name: string },
): { a: Dense; b: Dense } {
  const { u, s, v } = largest(matrix, rank, { init, name });
  const root = s.map((value) => Math.sqrt(value / scale));
  return { a: scaleRows(transposed(v), root), b: scaleColumns(u, root) };
}

function largest(
  matrix: Dense,
  count: number,
  { init, name }: { init: string; name: string },
): Singular {
  const rounds = /^pissa_niter_(\d+)$/.exec(init)?.[1];
  if (rounds === undefined) return topSingular(matrix, count);
  return randomisedSvd(matrix, { count, width: count, rounds: Number(rounds), name });
}
