import type { LoraSite } from "../../passes/lora.ts";
import { type Dense, firstColumns, orthonormal, product } from "../linear-algebra.ts";

/** OLoRA: B = Q[:, :r] and A = R[:r] of W = Q·R (out, in). https://arxiv.org/abs/2406.01775 */
export function oloraInit(matrix: Dense, { rank }: LoraSite): { a: Dense; b: Dense } {
  const b = orthonormal(firstColumns(matrix, rank));
  return { a: product(b, matrix, { transA: true }), b };
}
