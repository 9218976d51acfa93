/** @file From a graph to a schedule whose kernels are compiled, weights loaded and memory reserved. */
import { LorikeetError } from "../../errors.ts";
import type { Graph } from "../../ir/graph.ts";
import { expectAttention } from "./attention.ts";
import type { Compiling } from "./compile-together.ts";
import { collectKernels } from "./generated.ts";
import { compileExpected } from "./kernels.ts";
import type { AttentionChoice } from "./plan/attention-units.ts";
import { type BuiltPlan, buildPlan } from "./plan/build.ts";
import type { EngineParts } from "./plan/context.ts";
import type { Precision } from "./plan/graph.ts";
import { layOut, schedule } from "./plan/schedule.ts";
import type { Unit } from "./plan/value.ts";

/** A plan that can be bound to memory and captured. */
interface PlannedProgram {
  readonly plan: BuiltPlan;
  readonly units: readonly Unit[];
  readonly layout: ReturnType<typeof layOut>;
  /** What the arena holds at least, in bytes. */
  readonly bytes: number;
}

/**
 * Plans `graph`, compiles its kernels, several at once and while weights are loaded, and reserves its memory.
 * @throws LorikeetError `cuda-memory` when that does not fit, `cuda-compile` with the compiler's log
 */
export async function planAndCompile(
  parts: EngineParts,
  arena: { reserve(bytes: number): void },
  graph: Graph,
  options: { precision: Precision; attention: AttentionChoice },
): Promise<PlannedProgram> {
  const { device, weights } = parts;
  const kernels = collectKernels(device);
  expectAttention(device, graph, options.precision);
  await compileExpected(device).done;
  device.expectOpen();
  const { plan, units } = planUnits(parts, graph, { ...options, kernels });
  const layout = layOut(units);
  const bytes = Math.max(layout.bytes, plan.scratch.bytes);
  kernels.expect();
  await besides(compileExpected(device), async () => {
    await weights.load();
    arena.reserve(bytes);
  });
  device.expectOpen();
  kernels.compile();
  return { plan, units, layout, bytes };
}

/** Does `work` while kernels are compiled; when it fails, the rest of them is not needed. */
async function besides({ done, stop }: Compiling, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    stop();
    throw error;
  }
  await done;
}

/**
 * The plan and its units in order. Fusing looks at values one by one, and units that compute several may then need each
 * other: such a graph is planned again with a kernel for each value.
 */
function planUnits(
  parts: EngineParts,
  graph: Graph,
  options: Parameters<typeof buildPlan>[2],
): { plan: BuiltPlan; units: readonly Unit[] } {
  const plan = buildPlan(parts, graph, options);
  const units = schedule(plan.units);
  if (units) return { plan, units };
  const plain = buildPlan(parts, graph, { ...options, isUnfused: true });
  const ordered = schedule(plain.units);
  if (ordered) return { plan: plain, units: ordered };
  throw new LorikeetError("cuda-plan", "Expected units that can run one after another");
}
