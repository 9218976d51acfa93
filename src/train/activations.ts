import type { Dense } from "../adapter/linear-algebra.ts";
import type { Tensors } from "../backends/backend.ts";
import { type Graph, topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { input, isFrozen } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { toFloat64 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import type { StepShape, TrainPlan } from "./plan.ts";
import { plainLogits } from "./text-model.ts";

/** The first of the layers that read the same input, for each of `modules`. */
export function inputSources(plan: TrainPlan, modules: ReadonlySet<string>): Map<string, string> {
  const shape = { batch: 1, length: 1, rows: 1, hasSegments: false };
  const first = new Map<Node, string>();
  const sources = new Map<string, string>();
  for (const [module, x] of layerInputs(plan, shape, modules)) {
    first.set(x, first.get(x) ?? module);
    sources.set(module, first.get(x)!);
  }
  return sources;
}

/** What the layers `modules` of the plain base read: an output (R, in) each, of the rows `activation_rows` (R). */
export function activationsGraph(
  plan: TrainPlan,
  shape: StepShape,
  modules: ReadonlySet<string>,
): Graph {
  const rows = input("activation_rows", [shape.rows], "i64");
  const inputs = layerInputs(plan, shape, modules);
  const outputs = [...inputs].map(([module, x]) => [module, gatherRows(x, rows)] as const);
  return { outputs: Object.fromEntries(outputs), gradients: {} };
}

/**
 * The feed `activation_rows` for a batch, and how many of its rows count: tokens that are targets, or all that are no
 * padding.
 */
export function activationRows(
  batch: Tensors,
  onlyTargets: boolean,
): { rows: Tensor; count: number } {
  const found = onlyTargets && batch["loss_rows"] ? targetRows(batch) : tokenRows(batch);
  const size = onlyTargets && batch["loss_rows"] ? batch["loss_rows"].data.length : batch["input_ids"]!.data.length; // prettier-ignore
  const data = new BigInt64Array(size);
  for (const [i, row] of found.entries()) data[i] = BigInt(row);
  return { rows: tensor("i64", [size], data), count: found.length };
}

/** The first `count` rows of an output. */
export function countedRows({ shape, data, dtype }: Tensor, count: number): Dense {
  const columns = shape[1]!;
  const part = tensor(dtype, [count, columns], data.subarray(0, count * columns));
  return { rows: count, columns, data: toFloat64(part) };
}

function targetRows(batch: Tensors): number[] {
  const weights = batch["loss_weights"]!.data;
  return Array.from(batch["loss_rows"]!.data as BigInt64Array, Number)
    .filter((_, i) => Number(weights[i]) !== 0)
    .map((row) => row + 1);
}

/** An encoder's batch says which are tokens; others count positions up from 0 in each text, and have 0 in padding. */
function tokenRows(batch: Tensors): number[] {
  const ids = batch["input_ids"]!;
  const positions = batch["position_ids"]!.data;
  const length = ids.shape[1]!;
  const isToken = (i: number): boolean => {
    if (!batch["loss_rows"]) return Number(batch["segments"]!.data[i]) === 1;
    const isStart = (i + 1) % length !== 0 && Number(positions[i + 1]) === 1;
    return Number(positions[i]) > 0 || isStart;
  };
  return Array.from({ length: ids.data.length }, (_, i) => i).filter(isToken);
}

function layerInputs(
  plan: TrainPlan,
  shape: StepShape,
  modules: ReadonlySet<string>,
): Map<string, Node> {
  const found = new Map<string, Node>();
  for (const node of topological([plainLogits(plan.config, shape)])) {
    const [x, weight] = node.inputs;
    if (node.op !== linear.rules || !x || !weight || !isFrozen(weight)) continue;
    const module = String(node.attrs["module"] ?? "") || weight.name!.replace(/\.weight$/, "");
    if (modules.has(module)) found.set(module, x);
  }
  return found;
}
