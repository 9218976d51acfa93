/** @file Units of attention: each forward pass with the gradients that share its inputs. */
import { LorikeetError } from "../../../errors.ts";
import type { Node } from "../../../ir/node.ts";
import type { Attention, AttentionSpec, Segments } from "../attention.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import { dense } from "./special-units.ts";
import { addressOf, newValue, rowStride, type Value } from "./value.ts";

/** Picks the attention kernels for a spec; `isSegmented`: with segment ids. */
export type AttentionChoice = (spec: AttentionSpec, isSegmented: boolean) => Attention;

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

/** A forward pass whose results gradients read. */
interface Forward {
  readonly attention: Attention;
  readonly o: Value;
  readonly lse: Value;
}

/** Attention nodes of one graph: each forward with the backward nodes that share its inputs. */
export function addAttention(
  context: PlanContext,
  nodes: readonly Node[],
  choose: AttentionChoice,
): void {
  const known = new Map<string, Forward>();
  for (const node of nodes.filter(({ op }) => op.name === "attention"))
    known.set(keyOf(context, node), addForward(context, node, choose, storedValue(context, node)));
  const groups = new Map<string, Node[]>();
  for (const node of nodes.filter(({ op }) => op.name === "attentionGradient")) {
    const key = `${keyOf(context, node)} ${String(context.order.get(node.inputs[3]!))}`;
    groups.set(key, [...(groups.get(key) ?? []), node]);
  }
  for (const group of groups.values()) {
    const [first] = group as [Node];
    const { B, T, H, D } = specOf(context, first);
    const key = keyOf(context, first);
    const forward =
      known.get(key) ??
      addForward(context, first, choose, newValue([B, T, H, D], context.plan.precision));
    known.set(key, forward);
    addBackward(context, group, forward);
  }
}

/** Inputs of a node without the gradient of its result: q, k, v and segments. */
function operandsIn({ op, inputs }: Node): readonly Node[] {
  return op.name === "attention" ? inputs : [...inputs.slice(0, 3), ...inputs.slice(4)];
}

/** The same for a forward pass and its gradients. */
function keyOf({ order }: PlanContext, node: Node): string {
  const attrs = Object.entries(node.attrs).filter(([name]) => name !== "wrt");
  const places = operandsIn(node).map((input) => order.get(input));
  return places.join() + JSON.stringify(attrs.sort());
}

function addForward(context: PlanContext, node: Node, choose: AttentionChoice, o: Value): Forward {
  const spec = specOf(context, node);
  const reads = operandsIn(node).map((input) => storedValue(context, input));
  const attention = choose(spec, reads.length > 3);
  const lse = newValue([spec.B, spec.H, spec.T], "f32");
  const strides = { ...stridesOf(spec, reads), o: tokenStride(o, spec.H, spec.D) };
  const launch = attention.forward(strides);
  const scratch = newValue([launch.scratchBytes], "u8");
  addUnit(context, node, {
    name: "attention",
    reads,
    writes: [o, lse],
    scratch: [scratch],
    enqueue() {
      launch.enqueue({
        ...operandsOf(reads),
        ...{ o: addressOf(o), lse: addressOf(lse), scratch: addressOf(scratch) },
      });
    },
  });
  return { attention, o, lse };
}

/** The gradients `group` of one forward pass. */
function addBackward(
  context: PlanContext,
  group: readonly Node[],
  { attention, o, lse }: Forward,
): void {
  const { plan, values, order } = context;
  const first = group[0]!;
  const { H, Hk, D } = specOf(context, first);
  const inputs = operandsIn(first).map((input) => storedValue(context, input));
  const dout = storedValue(context, first.inputs[3]!);
  const spares: Value[] = [];
  const [dq, dk, dv] = ["q", "k", "v"].map((wrt, i) => {
    const node = group.find(({ attrs }) => attrs["wrt"] === wrt);
    if (node) return values.get(node)!;
    const spare = newValue(first.inputs[i]!.shape, plan.precision);
    spares.push(spare);
    return spare;
  }) as [Value, Value, Value];
  const last = group.reduce((a, b) => (order.get(a)! > order.get(b)! ? a : b));
  const launch = attention.backward({
    ...stridesOf({ H, Hk, D }, inputs),
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
      launch.enqueue({
        ...operandsOf(inputs),
        ...{ dout: addressOf(dout), dq: addressOf(dq), dk: addressOf(dk), dv: addressOf(dv) },
        ...{ o: addressOf(o), lse: addressOf(lse), scratch: addressOf(scratch) },
      });
    },
  });
}

function stridesOf(
  { H, Hk, D }: Pick<AttentionSpec, "H" | "Hk" | "D">,
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
