import { LorikeetError } from "../errors.ts";
import { quoteName } from "../formats/faults.ts";
import { toFloat32 } from "../tensor/convert.ts";
import type { Adapter } from "./adapter.ts";

/**
 * Makes sure that every value of the adapter is finite.
 * @throws LorikeetError `not-finite` naming the first tensor with another, and how many have some
 */
export function refuseNonFinite({ tensors }: Pick<Adapter, "tensors">): void {
  const bad = [...tensors].filter(
    ([, value]) => !toFloat32(value).every((element) => Number.isFinite(element)),
  );
  if (bad.length === 0) return;
  const others = bad.length > 1 ? ` and ${bad.length - 1} other tensors` : "";
  throw new LorikeetError(
    "not-finite",
    `Expected finite values, got NaN or infinity in ${quoteName(bad[0]![0])}${others} of the adapter`,
    { hint: "Every result would be NaN. Train it again, or take an earlier checkpoint." },
  );
}
