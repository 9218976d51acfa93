/** @file Which gradients of a group's adapters are plain products that can be computed together. */
import type { Node } from "../../../ir/node.ts";
import type { PlanContext } from "./context.ts";
import type { LoraBackward } from "./lora.ts";
import { addGradientsOfA, addGradientsOfB } from "./lora-gradients.ts";
import { upBackward } from "./lora-up-backward.ts";
import type { PlacedLora } from "./placement.ts";
import type { Product, Sum } from "./sums.ts";

/** What is computed together. */
interface Joined {
  /** Gradients of parameters. */
  readonly done: ReadonlySet<Node>;
  /** Backward passes of groups whose gradients through B are computed, too. */
  readonly low: ReadonlySet<LoraBackward>;
}

/** Gradients of a group's adapters together, where they are plain products. */
export function joinGradients(
  context: PlanContext,
  backwards: PlacedLora["backwards"],
  sums: ReadonlyMap<Node, Sum>,
): Joined {
  const low = new Set<LoraBackward>();
  const { plan, state } = context;
  /** The one product αaᵀ·b that is the whole gradient of `parameter`. */
  const productOf = (parameter: Node): { root: Node; product: Product } | undefined => {
    const root = plan.graph.gradients[parameter.name!];
    const sum = root && sums.get(root);
    const [product] = sum?.products ?? [];
    const isPlain =
      sum?.products.length === 1 && sum.others.length === 0 && product!.transA && !product!.transB;
    return isPlain && plan.users.get(root!)!.length === 0
      ? { root: root!, product: product! }
      : undefined;
  };
  const all = backwards.flatMap(({ placed, backward }) => {
    const members = backward.members.flatMap(({ dy, g, adapter }) =>
      adapter && g ? [{ dy, g, adapter }] : [],
    );
    if (members.length === 0) return [];
    const as = members.map(({ g, adapter }) => {
      const found = productOf(adapter.a);
      return found?.product.a === g && found.product.alpha === 1 ? found : undefined;
    });
    const bs = members.map(({ dy, adapter }) => {
      const found = productOf(adapter.b);
      const isSame =
        found?.product.a === dy &&
        Math.abs(found.product.alpha - adapter.scale) <= 1e-9 * Math.abs(adapter.scale);
      return isSame && context.values.get(found.product.b)?.cols === adapter.rank
        ? found
        : undefined;
    });
    const places = members.map(({ adapter }) => state.value(adapter.a.name!, ".grad").region);
    const isContiguous = places.every(
      ({ address }, i) => i === 0 || address === places[i - 1]!.address + places[i - 1]!.bytes,
    );
    const done: Node[] = [];
    const x = as[0]?.product.b;
    const isTight = members.every(({ adapter }) => adapter.rank % 8 === 0);
    if (x && isTight && isContiguous && as.every((each) => each?.product.b === x)) {
      addGradientsOfA(context, placed, backward, x);
      done.push(...as.map((each) => each!.root));
    }
    const isEven = members.every(
      ({ adapter }) =>
        adapter.rank === members[0]!.adapter.rank && adapter.scale === members[0]!.adapter.scale,
    );
    if (isEven && bs.every((each) => each !== undefined)) {
      const parts = members.map(({ dy, adapter }, i) => ({ dy, adapter, u: bs[i]!.product.b }));
      const up = upBackward(context, placed, backward);
      if (addGradientsOfB(context, placed, parts, up)) low.add(backward);
      done.push(...bs.map((each) => each.root));
    }
    return done;
  });
  return { done: new Set(all), low };
}
