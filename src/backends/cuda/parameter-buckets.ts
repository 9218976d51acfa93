/** @file Flat float32 arrays of trainable parameters: values, gradients and moments of those declared together. */
import { LorikeetError } from "../../errors.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import { allocateDevice, type Device } from "./device.ts";
import type { Kernel } from "./kernels.ts";
import { fillZero, readDevice, writeDevice } from "./memory.ts";
import { newValue, type Value } from "./plan/value.ts";

const PARTS = ["", ".grad", ".exp_avg", ".exp_avg_sq"] as const;
type Part = (typeof PARTS)[number];

/** A parameter's part of its bucket, and the copies that programs read. */
export interface Slot {
  readonly name: string;
  readonly shape: Shape;
  readonly size: number;
  readonly bucket: Bucket;
  /** First element in the bucket's arrays. */
  readonly start: number;
  copy: Value | undefined;
  transposed: Value | undefined;
  hasGradient: boolean;
}

/** Parameters that were declared together. */
export interface Bucket {
  readonly size: number;
  readonly arrays: Readonly<Record<Part, number>>;
  readonly slots: Slot[];
  tables: { segments: number; blocks: number; count: number } | undefined;
}

/** What the parts of the state share. */
export interface Store {
  readonly device: Device;
  readonly slots: Map<string, Slot>;
  readonly buckets: Bucket[];
  /** Values that were set before their parameter was declared. */
  readonly pending: Map<string, Tensor>;
  readonly copy: Kernel;
}

/** Gives memory to parameters that have none yet; values that were set before go there. */
export function declare(
  store: Store,
  parameters: readonly { readonly name: string; readonly shape: Shape }[],
): void {
  const { device, slots, buckets, pending } = store;
  const fresh = parameters.filter(({ name }) => !slots.has(name));
  if (fresh.length === 0) return;
  let size = 0;
  const starts = fresh.map(({ shape }) => {
    const start = size;
    size += Math.ceil(sizeOf(shape) / 8) * 8; // 32-byte alignment for vector accesses
    return start;
  });
  const array = (): number => {
    const at = allocateDevice(device, size * 4, "adapter weights and optimizer state");
    fillZero(device, at, size * 4);
    return at;
  };
  const arrays = { "": array(), ".grad": array(), ".exp_avg": array(), ".exp_avg_sq": array() };
  const bucket: Bucket = { size, arrays, slots: [], tables: undefined };
  buckets.push(bucket);
  for (const [i, { name, shape }] of fresh.entries()) {
    const slot: Slot = {
      ...{ name, shape, size: sizeOf(shape), bucket, start: starts[i]! },
      ...{ copy: undefined, transposed: undefined, hasGradient: false },
    };
    bucket.slots.push(slot);
    slots.set(name, slot);
    for (const part of PARTS) {
      const value = pending.get(name + part);
      if (value) write(store, name + part, value);
      pending.delete(name + part);
    }
  }
}

function find({ slots }: Store, name: string): { slot: Slot; part: Part } | undefined {
  const part =
    PARTS.slice(1).find(
      (suffix) => name.endsWith(suffix) && slots.has(name.slice(0, -suffix.length)),
    ) ?? "";
  const slot = slots.get(part === "" ? name : name.slice(0, -part.length));
  return slot && { slot, part };
}

/** Address of a part of a parameter. */
function placeOf({ bucket, start }: Slot, part: Part): number {
  return bucket.arrays[part] + start * 4;
}

/** Sets a value by name, or keeps it until its parameter is declared. @throws LorikeetError `shape` */
export function write(store: Store, name: string, value: Tensor): void {
  const { device } = store;
  const found = find(store, name);
  if (!found) {
    store.pending.set(name, value);
    return;
  }
  const { slot, part } = found;
  if (value.data.length !== slot.size)
    throw new LorikeetError(
      "shape",
      `Expected ${slot.size} elements for ${name} [${slot.shape.join(", ")}], got [${value.shape.join(", ")}]`,
    );
  device.driver.call.cuStreamSynchronize(device.stream);
  writeDevice(device, placeOf(slot, part), toFloat32(value));
  if (part === "" && slot.bucket.tables) launchCopies(store, slot.bucket);
}

/** A value by name. @throws LorikeetError `missing-weight` when none was set */
export function read(store: Store, name: string): Tensor {
  const found = find(store, name);
  if (!found) {
    const value = store.pending.get(name);
    if (value) return value;
    throw new LorikeetError("missing-weight", `Expected a value for ${name}; none was set`);
  }
  const data = new Float32Array(found.slot.size);
  readDevice(store.device, placeOf(found.slot, found.part), data);
  return tensor("f32", found.slot.shape, data);
}

/** A part of a parameter where it is stored. */
export function storedPart(slot: Slot, part: "" | ".grad"): Value {
  const value = newValue(slot.shape, "f32");
  value.region = { bytes: slot.size * 4, address: placeOf(slot, part), isPlanned: false };
  return value;
}

/** Brings the copies of a bucket's parameters up to date. */
export function launchCopies({ copy }: Store, { arrays, tables }: Bucket): void {
  if (tables!.count > 0)
    copy.launch([tables!.count], 256, [arrays[""], tables!.segments, tables!.blocks]);
}
