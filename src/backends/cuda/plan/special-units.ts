/** @file Units of ops with kernels of their own: attention, rotary embedding, scattered rows, cross-entropy of a head. */
import { LorikeetError } from "../../../errors.ts";
import type { Node } from "../../../ir/node.ts";
import type { Attention, AttentionSpec, Segments } from "../attention.ts";
import { type Kernel, loadModule } from "../kernels.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import { gemmCall, matrixOf, operand } from "./products.ts";
import {
  addressOf,
  isDense,
  newValue,
  rowStride,
  STORAGE_BYTES,
  type Unit,
  type Value,
} from "./value.ts";

/** Picks the attention kernels for a spec; `isSegmented`: with segment ids. */
export type AttentionChoice = (spec: AttentionSpec, isSegmented: boolean) => Attention;

function dense(value: Value, what: string): Value {
  if (isDense(value)) return value;
  throw new LorikeetError("cuda-plan", `Expected ${what} to be dense`);
}

function specOf({ plan }: PlanContext, node: Node): AttentionSpec {
  const [q, k] = node.inputs as [Node, Node];
  const [B, T, H, D] = q.shape as [number, number, number, number];
  const { causal, window, scale } = node.attrs as {
    causal: boolean;
    window: number;
    scale: number;
  };
  return {
    B,
    T,
    S: k.shape[1]!,
    H,
    Hk: k.shape[2]!,
    D,
    causal,
    window,
    scale,
    dtype: plan.precision as "bf16",
  };
}

/** Elements from one token to the next of a value with `heads` heads. */
function tokenStride(value: Value, heads: number, D: number): number {
  const ld = rowStride(value, heads * D);
  if (ld === undefined)
    throw new LorikeetError("cuda-plan", `Expected rows of ${heads} heads of ${D}`);
  return ld;
}

/** Attention nodes of one graph: each forward with the backward nodes that share its inputs. */
export function addAttention(
  context: PlanContext,
  nodes: readonly Node[],
  choose: AttentionChoice,
): void {
  const { plan, values } = context;
  const forwards = nodes.filter(({ op }) => op.name === "attention");
  const keyOf = (node: Node): string => {
    const [q, k, v, ...more] = node.inputs;
    const segments = node.op.name === "attention" ? more : more.slice(1);
    const { wrt, ...attrs } = node.attrs;
    wrt;
    return (
      [q, k, v, ...segments].map((input) => context.order.get(input!)).join() +
      JSON.stringify(Object.entries(attrs).sort())
    );
  };
  const known = new Map<string, { attention: Attention; o: Value; lse: Value }>();
  const forward = (node: Node, o: Value): { attention: Attention; o: Value; lse: Value } => {
    const spec = specOf(context, node);
    const inputs =
      node.op.name === "attention"
        ? node.inputs
        : [...node.inputs.slice(0, 3), ...node.inputs.slice(4)];
    const reads = inputs.map((input) => storedValue(context, input));
    const attention = choose(spec, reads.length > 3);
    const lse = newValue([spec.B, spec.H, spec.T], "f32");
    const result = { attention, o, lse };
    const launch = attention.forward({
      ...stridesOf(spec, reads),
      o: tokenStride(o, spec.H, spec.D),
    });
    const scratch = newValue([launch.scratchBytes], "u8");
    const enqueue = (): void => {
      launch.enqueue({
        ...operandsOf(reads),
        o: addressOf(o),
        lse: addressOf(lse),
        scratch: addressOf(scratch),
      });
    };
    addUnit(context, node, {
      name: "attention",
      reads,
      writes: [o, lse],
      scratch: [scratch],
      enqueue,
    });
    known.set(keyOf(node), result);
    return result;
  };
  for (const node of forwards) forward(node, storedValue(context, node));
  const groups = new Map<string, Node[]>();
  for (const node of nodes.filter(({ op }) => op.name === "attentionGradient")) {
    const key = `${keyOf(node)} ${String(context.order.get(node.inputs[3]!))}`;
    groups.set(key, [...(groups.get(key) ?? []), node]);
  }
  for (const group of groups.values()) {
    const [first] = group as [Node];
    const spec = specOf(context, first);
    const result =
      known.get(keyOf(first)) ??
      forward(first, newValue([spec.B, spec.T, spec.H, spec.D], plan.precision));
    const inputs = [...first.inputs.slice(0, 3), ...first.inputs.slice(4)].map((input) =>
      storedValue(context, input),
    );
    const dout = storedValue(context, first.inputs[3]!);
    const spares: Value[] = [];
    const wanted = (wrt: string, like: Node): Value => {
      const node = group.find(({ attrs }) => attrs["wrt"] === wrt);
      if (node) return values.get(node)!;
      const spare = newValue(like.shape, plan.precision);
      spares.push(spare);
      return spare;
    };
    const [dq, dk, dv] = ["q", "k", "v"].map((wrt, i) => wanted(wrt, first.inputs[i]!)) as [
      Value,
      Value,
      Value,
    ];
    const last = group.reduce((a, b) => (context.order.get(a)! > context.order.get(b)! ? a : b));
    const { o, lse, attention } = result;
    const { H, Hk, D } = spec;
    const launch = attention.backward({
      ...stridesOf(spec, inputs),
      ...{ o: tokenStride(o, H, D), dout: tokenStride(dout, H, D), dq: tokenStride(dq, H, D) },
      ...{ dk: tokenStride(dk, Hk, D), dv: tokenStride(dv, Hk, D) },
    });
    const scratch = newValue([launch.scratchBytes], "u8");
    addUnit(context, last, {
      name: "attention backward",
      reads: [...inputs, dout, o, lse],
      writes: group.map((node) => values.get(node)!),
      scratch: [scratch, ...spares],
      enqueue() {
        const gradients = {
          dout: addressOf(dout),
          dq: addressOf(dq),
          dk: addressOf(dk),
          dv: addressOf(dv),
        };
        launch.enqueue({
          ...operandsOf(inputs),
          ...gradients,
          o: addressOf(o),
          lse: addressOf(lse),
          scratch: addressOf(scratch),
        });
      },
    });
  }
}

function stridesOf(
  { H, Hk, D }: AttentionSpec,
  [q, k, v]: readonly Value[],
): { q: number; k: number; v: number } {
  return { q: tokenStride(q!, H, D), k: tokenStride(k!, Hk, D), v: tokenStride(v!, Hk, D) };
}

function operandsOf([q, k, v, queries, keys]: readonly Value[]): {
  q: number;
  k: number;
  v: number;
  segments: Segments;
} {
  return {
    ...{ q: addressOf(q!), k: addressOf(k!), v: addressOf(v!) },
    segments: {
      queries: queries ? addressOf(dense(queries, "segments")) : 0,
      keys: keys ? addressOf(dense(keys, "segments")) : 0,
    },
  };
}

/** Rotary embedding; in place when its input is not needed any more. */
export function addRope(context: PlanContext, node: Node): void {
  const [N, H, D] = node.shape as [number, number, number];
  const [x, cos, sin] = node.inputs.map((input) => storedValue(context, input)) as [
    Value,
    Value,
    Value,
  ];
  const out = storedValue(context, node);
  const half = node.inputs[1]!.shape[1]!;
  const [ldIn, ldOut] = [rowStride(x, H * D), rowStride(out, H * D)];
  if (ldIn === undefined || ldOut === undefined)
    throw new LorikeetError("cuda-plan", "Expected rope on rows of whole heads");
  const offsets = [x.offset, out.offset, ldIn, ldOut, half, D];
  const isWide =
    D === 2 * half && offsets.every((offset) => offset % 8 === 0) && N * H * half < 2 ** 31;
  let kernel: Kernel | undefined;
  const HEADS = 4; // heads of one thread in rope_wide
  const threads = isWide ? N * Math.ceil(H / HEADS) * (half / 8) : N * H * (D - half);
  addUnit(context, node, {
    name: "rope",
    reads: [x, dense(cos, "cosines"), dense(sin, "sines")],
    writes: [out],
    scratch: [],
    prepare() {
      kernel ??= loadModule(context.device, ["rows"], { T: x.storage, S: "f32" }).kernel(
        isWide ? "rope_wide" : "rope",
        "ppppiiiiii",
      );
    },
    enqueue() {
      const values = [
        addressOf(x),
        addressOf(cos),
        addressOf(sin),
        addressOf(out),
        N,
        H,
        D,
        half,
        ldIn,
        ldOut,
      ];
      kernel!.launch([Math.ceil(threads / 256)], 256, values);
    },
  });
}

export function addScatter(context: PlanContext, node: Node): void {
  const [updates, ids] = node.inputs.map((input) => storedValue(context, input)) as [Value, Value];
  const out = storedValue(context, node);
  const [rows, C] = node.shape as [number, number];
  const [from, to] = [matrixOf(updates, C), matrixOf(out, C)];
  let kernel: Kernel | undefined;
  addUnit(context, node, {
    name: "scatter rows",
    reads: [updates, dense(ids, "ids")],
    writes: [out],
    scratch: [],
    prepare() {
      kernel ??= loadModule(context.device, ["rows"], { T: updates.storage, S: "f32" }).kernel(
        "scatter_rows",
        "pppiiii",
      );
    },
    enqueue() {
      kernel!.launch([rows], 256, [
        addressOf(updates),
        addressOf(ids),
        addressOf(out),
        ids.size,
        C,
        from.ld,
        to.ld,
      ]);
    },
  });
}

/** Most bytes that the logits of one chunk of rows take. */
const CHUNK_BYTES = 288 << 20;
/** The same when the base is quantized to save memory. */
const SMALL_CHUNK_BYTES = 128 << 20;

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
  const ld = Math.ceil(V / 8) * 8;
  const most = context.weights.isLean ? SMALL_CHUNK_BYTES : CHUNK_BYTES;
  const chunks = Math.ceil((R * ld * STORAGE_BYTES[precision]) / most);
  const rows = Math.min(R, Math.ceil(R / chunks / 128) * 128);
  const from = operand(context, hidden, precision, C);
  const weight = operand(context, head, precision, C);
  const [ids, factors] = [storedValue(context, targets), storedValue(context, weights)];
  const logits = newValue([rows, ld], precision);
  const losses = newValue([R], "f32");
  const out = loss && storedValue(context, loss);
  const dx = gradient && storedValue(context, gradient);
  const target = dx && matrixOf(dx, C);
  let kernels: { rows: Kernel; sum: Kernel } | undefined;
  const calls = Array.from({ length: Math.ceil(R / rows) }, (_, i) => {
    const M = Math.min(rows, R - i * rows);
    const at = { value: logits, offset: 0, ld };
    const forward = gemmCall(context, {
      M,
      N: V,
      K: C,
      transB: true,
      a: { ...from, offset: from.offset + i * rows * from.ld },
      b: weight,
      d: at,
    });
    const backward =
      target &&
      gemmCall(context, {
        M,
        N: C,
        K: V,
        a: at,
        b: weight,
        d: { ...target, offset: target.offset + i * rows * target.ld },
      });
    return { M, first: i * rows, forward, backward };
  });
  const unit: Unit = {
    name: "cross-entropy",
    reads: [from.value, weight.value, dense(ids, "targets"), dense(factors, "loss weights")],
    writes: [...(out ? [out] : []), ...(dx ? [dx] : [])],
    scratch: [logits, losses],
    prepare() {
      kernels ??= kernelsFor(context, { T: precision, VEC: width, GRADIENT: gradient ? 1 : 0 });
      for (const { forward, backward } of calls) {
        forward.prepare();
        backward?.prepare();
      }
    },
    enqueue() {
      for (const { M, first, forward, backward } of calls) {
        forward.enqueue();
        const shifted = [addressOf(ids), addressOf(factors), addressOf(losses)].map(
          (at) => at + first * 4,
        );
        kernels!.rows.launch([M], 512, [addressOf(logits), ...shifted, V, ld]);
        backward?.enqueue();
      }
      if (out) kernels!.sum.launch([1], 512, [addressOf(losses), addressOf(out), R]);
    },
  };
  addUnit(
    context,
    loss && gradient && context.order.get(loss)! < context.order.get(gradient)! ? loss : node,
    unit,
  );
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
