import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { isFrozen } from "../ops/leaf.ts";

/** Makes the frozen weights that `trains` names trainable: full fine-tuning, modules_to_save, biases. */
export function unfreeze(roots: readonly Node[], trains: (name: string) => boolean): Node[] {
  return rewrite(roots, (node) =>
    isFrozen(node) && trains(node.name!)
      ? { ...node, attrs: { ...node.attrs, trainable: true } }
      : undefined,
  );
}
