/** @file Units of the cross-entropy of a frozen head, whose logits exist by chunks of rows. */
import type { Node } from "../../../ir/node.ts";
import { type Kernel, loadModule } from "../kernels.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import { gemmCall, type GemmCall, type Matrix, matrixOf, operand } from "./products.ts";
import { dense } from "./special-units.ts";
import { addressOf, newValue, STORAGE_BYTES, type Value } from "./value.ts";

/** Most bytes that the logits of one chunk of rows take. */
const CHUNK_BYTES = 288 << 20;
/** The same when the base is quantized to save memory. */
const SMALL_CHUNK_BYTES = 128 << 20;

/** Rows of logits that exist at once. */
interface Chunk {
  readonly first: number;
  readonly M: number;
  readonly forward: GemmCall;
  readonly backward: GemmCall | undefined;
}

/** Loss of a frozen head on hidden rows and, when `gradient` is given, its gradient: logits exist by chunks of rows. */
export function addCrossEntropy(
  context: PlanContext,
  loss: Node | undefined,
  gradient: Node | undefined,
): void {
  const node = (loss ?? gradient)!;
  const { precision } = context.plan;
  const [hidden, head, targets, weights] = node.inputs as [Node, Node, Node, Node];
  const [R, C] = hidden.shape as [number, number];
  const V = head.shape[0]!;
  const width = V % 8 === 0 ? 8 : V % 4 === 0 ? 4 : 1;
  const [from, weight] = [hidden, head].map((each) => operand(context, each, precision, C)) as [
    ...[Matrix, Matrix],
  ];
  const [ids, factors] = [storedValue(context, targets), storedValue(context, weights)];
  const out = loss && storedValue(context, loss);
  const dx = gradient && storedValue(context, gradient);
  const logits = newValue([rowsOfChunk(context, R, V), Math.ceil(V / 8) * 8], precision);
  const losses = newValue([R], "f32");
  const chunks = chunksOf(context, { R, V, C, from, weight, logits, dx });
  let kernels: { rows: Kernel; sum: Kernel } | undefined;
  const isLossFirst = loss && gradient && context.order.get(loss)! < context.order.get(gradient)!;
  addUnit(context, isLossFirst ? loss : node, {
    name: "cross-entropy",
    reads: [from.value, weight.value, dense(ids, "targets"), dense(factors, "loss weights")],
    writes: [...(out ? [out] : []), ...(dx ? [dx] : [])],
    scratch: [logits, losses],
    prepare() {
      kernels ??= kernelsFor(context, { T: precision, VEC: width, GRADIENT: gradient ? 1 : 0 });
      for (const { forward, backward } of chunks) {
        forward.prepare();
        backward?.prepare();
      }
    },
    enqueue() {
      for (const { M, first, forward, backward } of chunks) {
        forward.enqueue();
        const rows = [ids, factors, losses].map((each) => addressOf(each) + first * 4);
        kernels!.rows.launch([M], 512, [addressOf(logits), ...rows, V, logits.shape[1]!]);
        backward?.enqueue();
      }
      if (out) kernels!.sum.launch([1], 512, [addressOf(losses), addressOf(out), R]);
    },
  });
}

function rowsOfChunk({ weights, plan }: PlanContext, R: number, V: number): number {
  const bytes = R * Math.ceil(V / 8) * 8 * STORAGE_BYTES[plan.precision];
  const count = Math.ceil(bytes / (weights.isLean ? SMALL_CHUNK_BYTES : CHUNK_BYTES));
  return Math.min(R, Math.ceil(R / count / 128) * 128);
}

/** The products of each chunk: logits, and the gradient of its hidden rows. */
function chunksOf(
  context: PlanContext,
  {
    R,
    V,
    C,
    from,
    weight,
    logits,
    dx,
  }: {
    readonly R: number;
    readonly V: number;
    readonly C: number;
    readonly from: Matrix;
    readonly weight: Matrix;
    readonly logits: Value;
    readonly dx: Value | undefined;
  },
): Chunk[] {
  const [rows, ld] = logits.shape as [number, number];
  const target = dx && matrixOf(dx, C);
  const at = { value: logits, offset: 0, ld };
  const shifted = (matrix: Matrix, first: number): Matrix => ({
    ...matrix,
    offset: matrix.offset + first * matrix.ld,
  });
  return Array.from({ length: Math.ceil(R / rows) }, (_, i) => {
    const first = i * rows;
    const M = Math.min(rows, R - first);
    const a = shifted(from, first);
    const forward = gemmCall(context, { M, N: V, K: C, transB: true, a, b: weight, d: at });
    const d = target && shifted(target, first);
    const backward = d && gemmCall(context, { M, N: C, K: V, a: at, b: weight, d });
    return { M, first, forward, backward };
  });
}

function kernelsFor(
  { device }: PlanContext,
  defines: Record<string, string | number>,
): { rows: Kernel; sum: Kernel } {
  const module = loadModule(device, ["cross-entropy"], defines);
  return {
    rows: module.kernel("cross_entropy_rows", "ppppii"),
    sum: module.kernel("sum_all", "ppi"),
  };
}
