import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { attentionGradient } from "../ops/attention-gradient.ts";
import { attention } from "../ops/attention.ts";
import { pad } from "../ops/pad.ts";
import { slice } from "../ops/slice.ts";

/**
 * Attention with heads widened by zeros to multiples of `unit` features, where `isPadded` says so: the scores and the
 * first features are the same, and the zeros are cut off again. For kernels that know few sizes (SD 1 has heads of 40).
 */
export function padHeads(
  roots: readonly Node[],
  unit: number,
  isPadded: (D: number) => boolean,
): Node[] {
  return rewrite(roots, (node) => {
    if (node.op !== attention.rules && node.op !== attentionGradient.rules) return undefined;
    const D = node.inputs[0]!.shape[3]!;
    if (D !== node.inputs[2]!.shape[3] || D % unit === 0 || !isPadded(D)) return undefined;
    const wide = Math.ceil(D / unit) * unit;
    const isVector = (input: Node | undefined): input is Node => input?.shape.length === 4;
    const again = node.phase && { phase: node.phase };
    const inputs = node.inputs.map((input) =>
      isVector(input)
        ? { ...pad(input, { axis: 3, before: 0, after: wide - D }), ...again }
        : input,
    );
    const padded = { ...node, inputs, shape: [...node.shape.slice(0, 3), wide] };
    return { ...slice(padded, { axis: 3, start: 0, end: D }), ...again };
  });
}
