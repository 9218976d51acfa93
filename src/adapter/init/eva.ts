import { LorikeetError } from "../../errors.ts";
import { convert } from "../../tensor/convert.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { Dense } from "../linear-algebra.ts";
import type { EvaConfig, LoraConfig } from "../lora-config.ts";
import { strengthOf } from "../targets.ts";
import { evaRanks } from "./eva-ranks.ts";
import { partialFit, type Principal } from "./incremental-pca.ts";

/** A linear layer that EVA starts. */
export interface EvaLayer {
  readonly module: string;
  /** Its rank before ranks are shared out anew. */
  readonly rank: number;
  /** Name of its input; layers that read the same values have the same. */
  readonly source: string;
}

/** The inputs `sources` of layers on the next batch, one token a row (N, C), without those that do not count. */
export type NextActivations = (sources: readonly string[]) => Promise<ReadonlyMap<string, Dense>>;

/** Batches after which directions that still turn are given up. */
const MOST_BATCHES = 1000;
/** Batches in a row that may be too short. */
const MOST_SHORT = 100;

/**
 * EVA: A of each layer is made of the directions in which its inputs vary most, and ranks go where directions explain
 * most; B is zero. Batches are read until each direction that is used keeps still. https://arxiv.org/abs/2410.07170
 * @returns A (rank, in) by module, f32; of rank 0 for layers that get none
 * @throws LorikeetError `eva` when batches are too short, or directions do not settle
 */
export async function evaDirections(
  layers: readonly EvaLayer[],
  eva: EvaConfig,
  next: NextActivations,
): Promise<Map<string, Tensor>> {
  const inputs = inputsOf(layers, eva);
  let ranks = new Map(layers.map(({ module, source }) => [module, inputs.get(source)!.most]));
  for (let batch = 0; ; batch++) {
    const turning = [...inputs.values()].filter(
      (input) => !isStill(input, ranks.get(input.leader)!),
    );
    if (turning.length === 0) break;
    if (batch === MOST_BATCHES) throw unsettled(turning[0]!);
    const activations = await next(turning.map(({ source }) => source));
    for (const input of turning) fit(input, activations.get(input.source)!, eva.tau);
    if ([...inputs.values()].every(({ found }) => found))
      ranks = evaRanks(layers, new Map([...inputs].map(([name, { found }]) => [name, found!.ratios]))); // prettier-ignore
  }
  return new Map(
    layers.map(({ module, source }) => [
      module,
      directionsOf(inputs.get(source)!.found!, ranks.get(module)!, eva),
    ]),
  );
}

/**
 * `config` for the ranks that `directions` have: ranks and alphas of single modules, and no target of rank 0.
 * @param targets modules that `config` adapts, those without directions included
 */
export function withEvaRanks(
  config: LoraConfig,
  directions: ReadonlyMap<string, Tensor>,
  targets: Iterable<string>,
): LoraConfig {
  const rankPattern: Record<string, number> = {};
  const alphaPattern: Record<string, number> = {};
  const targetModules: string[] = [];
  for (const module of targets) {
    const { rank, alpha } = strengthOf(config, module);
    const found = directions.get(module)?.shape[0] ?? rank;
    if (found === 0) continue;
    targetModules.push(module);
    const adjusted = config.eva?.adjustScalingFactors === false ? alpha : (alpha * found) / rank;
    if (found !== config.r) rankPattern[module] = found;
    if (adjusted !== config.alpha) alphaPattern[module] = adjusted;
  }
  return { ...config, targetModules, rankPattern, alphaPattern, layersToTransform: undefined, layersPattern: undefined, excludeModules: undefined }; // prettier-ignore
}

/** What is known of one input. */
interface Input {
  readonly source: string;
  /** The first layer that reads it: its rank decides when the input is done. */
  readonly leader: string;
  /** Most directions that a layer may get of it. */
  readonly most: number;
  found: Principal | undefined;
  /** Cosine similarity of each direction to its former self is at least tau. */
  still: readonly boolean[];
  short: number;
}

function inputsOf(layers: readonly EvaLayer[], { rho }: EvaConfig): Map<string, Input> {
  const inputs = new Map<string, Input>();
  for (const { module, rank, source } of layers) {
    const known = inputs.get(source);
    const most = Math.max(known?.most ?? 0, roundHalfEven(rank * rho));
    const leader = known?.leader ?? module;
    inputs.set(source, { source, leader, most, found: undefined, still: [], short: 0 });
  }
  return inputs;
}

function isStill({ still, found }: Input, rank: number): boolean {
  return (
    rank === 0 || (found !== undefined && still.length > 0 && still.slice(0, rank).every(Boolean))
  );
}

function fit(input: Input, x: Dense, tau: number): void {
  if (input.most > x.columns) throw new LorikeetError("eva", `Expected at most ${x.columns} directions, the width of the input of ${input.leader}, got rank · rho = ${input.most}`, { hint: "Choose a smaller r or rho." }); // prettier-ignore
  if (x.rows < input.most) {
    if (++input.short < MOST_SHORT) return;
    throw new LorikeetError("eva", `Expected batches of at least ${input.most} target tokens (rank · rho), got ${x.rows} and fewer in ${MOST_SHORT} batches`, { hint: "Use larger batches, a smaller r or rho, or use_label_mask: false in eva_config." }); // prettier-ignore
  }
  input.short = 0;
  const before = input.found?.components;
  input.found = partialFit(input.found, x, { n: input.most, name: input.leader });
  if (before) input.still = similarities(input.found.components, before).map((cos) => cos >= tau);
}

function similarities(a: Dense, b: Dense): number[] {
  return Array.from({ length: a.rows }, (_, row) => {
    let [dot, aa, bb] = [0, 0, 0];
    for (let i = row * a.columns; i < (row + 1) * a.columns; i++) {
      dot += a.data[i]! * b.data[i]!;
      aa += a.data[i]! ** 2;
      bb += b.data[i]! ** 2;
    }
    return dot / Math.max(1e-8, Math.sqrt(aa * bb));
  });
}

function directionsOf({ components, singular }: Principal, rank: number, eva: EvaConfig): Tensor {
  const { columns } = components;
  const data = components.data
    .slice(0, rank * columns)
    .map((value, i) =>
      eva.whiten ? value / Math.sqrt(singular[Math.floor(i / columns)]!) : value,
    );
  return convert(tensor("f64", [rank, columns], data), "f32");
}

/** As Python rounds. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

function unsettled({ leader }: Input): LorikeetError {
  return new LorikeetError("eva", `Expected the directions of ${leader}'s input to settle within ${MOST_BATCHES} batches, they still turn`, { hint: "Lower tau or rho in eva_config, or use larger batches." }); // prettier-ignore
}
