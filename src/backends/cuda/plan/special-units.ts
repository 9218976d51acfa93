/** @file Units of ops with kernels of their own that move rows: rotary embedding and scattered rows. */
import { LorikeetError } from "../../../errors.ts";
import type { Node } from "../../../ir/node.ts";
import { type Kernel, loadModule } from "../kernels.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import { matrixOf } from "./products.ts";
import { addressOf, isDense, rowStride, type Value } from "./value.ts";

/** `value`, which must have no gaps. @throws LorikeetError `cuda-plan` */
export function dense(value: Value, what: string): Value {
  if (isDense(value)) return value;
  throw new LorikeetError("cuda-plan", `Expected ${what} to be dense`);
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
