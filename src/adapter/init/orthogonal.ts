import { LorikeetError } from "../../errors.ts";
import type { LoraCandidate, LoraSite } from "../../passes/lora.ts";
import { Random } from "../../tensor/random.ts";
import { type Dense, orthonormal, product } from "../linear-algebra.ts";

/**
 * A from the even and B from the odd rows of one random orthogonal matrix Q (r, r), so that B·A is zero though
 * neither is. https://datta0.github.io/posts/rethink-lora-init/
 * @throws LorikeetError `unsupported-init` for an odd rank
 */
export function orthogonalInit(
  { outFeatures: out, inFeatures }: LoraCandidate,
  { rank, module }: LoraSite,
  { seed, name }: { seed: number; name: string },
): { a: Dense; b: Dense } {
  if (rank % 2 !== 0)
    throw new LorikeetError(
      "unsupported-init",
      `Expected an even rank for the orthogonal initialisation, got ${rank} on ${module}`,
      { hint: "Choose an even r." },
    );
  const random = new Random(seed).fork(name);
  const normal = (rows: number, columns: number): Dense => ({
    rows,
    columns,
    data: Float64Array.from({ length: rows * columns }, () => random.normal()),
  });
  const half = rank / 2;
  const q = orthonormal(normal(rank, rank));
  const every = (parity: number): Dense => ({
    rows: half,
    columns: rank,
    data: q.data.filter((_, i) => Math.floor(i / rank) % 2 === parity),
  });
  const tenth = (matrix: Dense): Dense => ({ ...matrix, data: matrix.data.map((x) => x / 10) });
  return {
    a: tenth(product(every(0), normal(half, inFeatures), { transA: true })),
    b: tenth(product(normal(out, half), every(1))),
  };
}
