import { type Graph, topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { input, isTrainable } from "../ops/leaf.ts";
import { checkpoint } from "../passes/checkpoint.ts";
import { gradient } from "../passes/gradient.ts";
import type { LoraSite } from "../passes/lora.ts";

/** What a step needs to know of a plan besides its loss. */
export interface StepPlan {
  readonly sites: ReadonlyMap<string, LoraSite>;
  /** Recompute each block in the backward pass instead of keeping its activations. */
  readonly checkpointing: boolean;
  /** Whether a trainable parameter stays as it is: it gets no gradient. */
  readonly isHeld?: (name: string) => boolean;
}

/**
 * One forward and backward pass: output `loss`, and a gradient for everything in it that trains and is not held.
 * @param lossOf the loss, given the seed of dropout (the input `dropout_seed`) where a site drops
 */
export function stepGraph(plan: StepPlan, lossOf: (seed: Node | undefined) => Node): Graph {
  const drops = [...plan.sites.values()].some((site) => site.dropout > 0);
  const forward = lossOf(drops ? input("dropout_seed", [], "i64") : undefined);
  const params = topological([forward]).filter(
    (node) => isTrainable(node) && !plan.isHeld?.(node.name!),
  );
  const { loss, gradients } = gradient(forward, params);
  const results = plan.checkpointing ? checkpoint(loss, gradients) : gradients;
  return {
    outputs: { loss },
    gradients: Object.fromEntries(params.map((param, i) => [param.name!, results[i]!])),
  };
}
