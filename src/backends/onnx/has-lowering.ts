import type { Node } from "../../ir/node.ts";
import type { OnnxEmitter, OnnxProfile, OnnxValue } from "../../ir/rules.ts";

/** Whether `node`'s op has a lowering of its own for `profile`; the others are decomposed first. */
export function hasLowering(node: Node, profile: OnnxProfile): boolean {
  if (node.inputs.length === 0) return true;
  return node.op.onnx?.(probes[profile], node, node.inputs.map(any)) !== undefined;
}

const any = (): OnnxValue => "any";

/** Takes what a lowering emits and keeps nothing. */
const probeOf = (profile: OnnxProfile): OnnxEmitter => ({
  profile,
  node: any,
  results: (count) => Array.from({ length: count }, any),
  constant: any,
  ints: any,
  scalar: any,
  remember: () => undefined,
  recall: () => undefined,
});

const probes: Readonly<Record<OnnxProfile, OnnxEmitter>> = {
  cpu: probeOf("cpu"),
  webgpu: probeOf("webgpu"),
  portable: probeOf("portable"),
};
