/** @file Units that append new rows to key/value caches after a program has read them. */
import { LorikeetError } from "../../../errors.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { type Kernel, loadModule } from "../kernels.ts";
import { type PlanContext, storedValue } from "./context.ts";
import { addressOf, newValue, rowStride, type Value } from "./value.ts";

/** Input (a scalar) that says from which slot on new rows stand. */
const OFFSET = "cache_offset";

export function addCaches(context: PlanContext): void {
  const { caches = {} } = context.plan.graph;
  const names = Object.keys(caches);
  if (names.length === 0) return;
  const offset = offsetInput(context);
  for (const name of names) {
    const node = caches[name]!;
    const [batch, count] = node.shape as [number, number];
    const inner = sizeOf(node.shape.slice(2));
    const rows = storedValue(context, node);
    const stride = rowStride(rows, inner);
    if (stride === undefined)
      throw new LorikeetError("cuda-plan", `Expected rows of ${inner} for the cache ${name}`);
    const reader = context.plan.order.find(
      (each) => each.name === name && each.op.name === "input",
    );
    const target = context.caches.target(name, node.shape, reader?.shape[1] ?? 0, rows.storage);
    let kernel: Kernel | undefined;
    const sizes = [batch, count, inner, stride, target.ld];
    context.units.push({
      at: Number.MAX_SAFE_INTEGER, // when everything that reads the cache has run
      unit: {
        name: "append to cache",
        reads: [rows, offset],
        writes: [],
        scratch: [],
        prepare() {
          kernel ??= loadModule(context.device, ["rows"], { T: rows.storage, S: "f32" }).kernel(
            "append_rows",
            "pppiiiii",
          );
        },
        enqueue() {
          kernel!.launch([Math.max(1, Math.min(1024, Math.ceil(rows.size / 256)))], 256, [
            addressOf(rows),
            addressOf(target),
            addressOf(offset),
            ...sizes,
          ]);
        },
      },
    });
  }
}

function offsetInput({ inputs }: PlanContext): Value {
  const known = inputs.get(OFFSET);
  if (known) return known;
  const value = newValue([], "i32");
  value.region = { ...value.region, isPlanned: false };
  inputs.set(OFFSET, value);
  return value;
}
