/** @file Trainable parameters on the GPU: values, gradients and moments in flat float32 arrays, AdamW as one launch. */
import { LorikeetError } from "../../errors.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { AdamWStep } from "../backend.ts";
import { type Communicator, type GradientSum, gradientSum } from "./communicator.ts";
import { allocateDevice, type CapturedGraph, capture, type Device, freeDevice } from "./device.ts";
import { type Kernel, loadModule, type Module } from "./kernels.ts";
import { allocatePinned, fillZero, readDevice, writeDevice } from "./memory.ts";
import type { Precision } from "./plan/graph.ts";
import { addressOf, newValue, type Storage, type Value } from "./plan/value.ts";

const PARTS = ["", ".grad", ".exp_avg", ".exp_avg_sq"] as const;
type Part = (typeof PARTS)[number];
const SEGMENT_BYTES = 48;
const BLOCK = 1024;
const NORM_BLOCKS = 512;
/** Bytes of an update's settings; the norm that it finds goes behind them. */
const NORM_AT = 48;

interface Slot {
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
interface Bucket {
  readonly size: number;
  readonly arrays: Readonly<Record<Part, number>>;
  readonly slots: Slot[];
  tables: { segments: number; blocks: number; count: number } | undefined;
}

export interface TrainableState {
  /** Gives memory to parameters that have none yet, in this order. */
  declare(parameters: readonly { readonly name: string; readonly shape: Shape }[]): void;
  has(name: string): boolean;
  /** A stored value of a parameter (or its gradient) in float32. */
  value(name: string, part: "" | ".grad"): Value;
  /** The copy of a parameter that matrix products read; `place` says where it goes if it has none yet. */
  copyOf(name: string, storage: Storage, place?: () => Value): Value;
  /** The same copy transposed (of a parameter that has a copy already). */
  transposedOf(name: string): Value;
  /** Marks a parameter as one that a program computes the gradient of. */
  expectGradient(name: string): void;
  /** Brings copies and launch tables up to date after a program was planned. */
  refresh(): void;
  read(name: string): Tensor;
  write(name: string, value: Tensor): void;
  update(step: AdamWStep): Promise<{ gradNorm: number }>;
  /** Adds gradients up over all processes, once before each update. */
  sumGradients(): void;
  clearGradients(): void;
}

/** What the parts of the state share. */
interface Store {
  readonly device: Device;
  readonly slots: Map<string, Slot>;
  readonly buckets: Bucket[];
  /** Values that were set before their parameter was declared. */
  readonly pending: Map<string, Tensor>;
  readonly copy: Kernel;
}

export function trainableState(
  device: Device,
  precision: Precision,
  ranks?: Communicator,
): TrainableState {
  const module = loadModule(device, ["adamw"], { T: precision });
  const store: Store = {
    ...{ device, slots: new Map(), buckets: [], pending: new Map() },
    copy: module.kernel("copy_parameters", "ppp"),
  };
  const { slots, buckets } = store;
  const sum = gradientSum(ranks, () =>
    buckets.map(({ arrays, size }) => [arrays[".grad"], size] as const),
  );
  const updater = openUpdater(store, module, sum);
  return {
    declare: (parameters) => {
      declare(store, parameters);
    },
    has: (name) => slots.has(name),
    value: (name, part) => storedPart(slots.get(name)!, part),
    copyOf(name, storage, place) {
      const slot = slots.get(name)!;
      slot.copy ??= place?.() ?? ownCopy(device, slot, storage);
      return slot.copy;
    },
    transposedOf(name) {
      const slot = slots.get(name)!;
      const [rows, columns] = slot.shape as [number, number];
      slot.transposed ??= {
        ...ownCopy(device, { ...slot, shape: [columns, rows] }, slot.copy!.storage),
        factor: slot.copy!.factor,
      };
      return slot.transposed;
    },
    expectGradient: (name) => void (slots.get(name)!.hasGradient = true),
    refresh: updater.refresh,
    read: (name) => read(store, name),
    write: (name, value) => {
      write(store, name, value);
    },
    update: updater.update,
    sumGradients: () => {
      sum.addUp();
    },
    clearGradients() {
      sum.reset();
      for (const { arrays, size } of buckets) fillZero(device, arrays[".grad"], size * 4);
    },
  };
}

function declare(
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

function write(store: Store, name: string, value: Tensor): void {
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

function read(store: Store, name: string): Tensor {
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

function storedPart(slot: Slot, part: "" | ".grad"): Value {
  const value = newValue(slot.shape, "f32");
  value.region = { bytes: slot.size * 4, address: placeOf(slot, part), isPlanned: false };
  return value;
}

function launchCopies({ copy }: Store, { arrays, tables }: Bucket): void {
  if (tables!.count > 0)
    copy.launch([tables!.count], 256, [arrays[""], tables!.segments, tables!.blocks]);
}

/** AdamW over all buckets as one captured graph. */
function openUpdater(
  store: Store,
  module: Module,
  sum: GradientSum,
): Pick<TrainableState, "refresh" | "update"> {
  const { device, buckets } = store;
  const kernels = {
    squares: module.kernel("square_sums", "ppl"),
    norm: module.kernel("gradient_norm", "pppi"),
    adamw: module.kernel("adamw", "pppppppp"),
  };
  const sums = allocateDevice(device, NORM_BLOCKS * 4 * 8, "gradient norms");
  const hyper = allocateDevice(device, 64, "optimizer settings");
  const norm = hyper + NORM_AT;
  const pinned = allocatePinned(device, 64);
  const settings = new Float32Array(pinned.buffer);
  let graph: CapturedGraph | undefined;
  let scales = "";

  function refresh(): void {
    for (const bucket of buckets) {
      bucket.tables = tablesOf(device, bucket, scales);
      launchCopies(store, bucket);
    }
    graph?.dispose();
    graph = undefined;
  }

  function enqueue(): void {
    const { call } = device.driver;
    call.cuMemcpyHtoDAsync_v2(hyper, pinned.address, NORM_AT, device.stream);
    for (const [i, { arrays, size }] of buckets.entries()) {
      const own = sums + i * NORM_BLOCKS * 4;
      kernels.squares.launch([NORM_BLOCKS], 256, [arrays[".grad"], own, size]);
    }
    kernels.norm.launch([1], 256, [sums, norm, hyper, buckets.length * NORM_BLOCKS]);
    for (const { arrays, tables } of buckets) {
      const { "": p, ".grad": g, ".exp_avg": m, ".exp_avg_sq": v } = arrays;
      const { segments, blocks, count } = tables!;
      if (count > 0)
        kernels.adamw.launch([count], 256, [p, g, m, v, segments, blocks, hyper, norm]);
    }
    call.cuMemcpyDtoHAsync_v2(pinned.address + NORM_AT, norm, 4, device.stream);
  }

  async function update(step: AdamWStep): Promise<{ gradNorm: number }> {
    const wanted = JSON.stringify(step.learningRateScales ?? {});
    if (wanted !== scales || buckets.some(({ tables }) => !tables)) {
      scales = wanted;
      refresh();
    }
    settings.set(settingsOf(step));
    sum.addUp();
    sum.reset();
    graph ??= capture(device, enqueue);
    graph.launch();
    await device.settled();
    return { gradNorm: settings[NORM_AT / 4]! };
  }

  return { refresh, update };
}

/** The struct `Update` of adamw.cu. */
function settingsOf(update: AdamWStep): number[] {
  const { learningRate, betas, eps, weightDecay, maxGradNorm, step, lossScale = 1 } = update;
  const corrections = betas.map((beta) => 1 - beta ** step);
  return [learningRate, ...betas, eps, weightDecay, ...corrections, maxGradNorm, 1 / lossScale];
}

function ownCopy(device: Device, slot: Slot, storage: Storage): Value {
  const value = newValue(slot.shape, storage);
  value.region = {
    bytes: value.region.bytes,
    address: allocateDevice(device, value.region.bytes, `a copy of ${slot.name}`),
    isPlanned: false,
  };
  return value;
}

/** Launch tables of adamw.cu: one segment a parameter, one block for every 1024 elements. */
function tablesOf(device: Device, bucket: Bucket, scales: string): Bucket["tables"] {
  const rates = JSON.parse(scales || "{}") as Record<string, number>;
  const segments = new DataView(new ArrayBuffer(bucket.slots.length * SEGMENT_BYTES));
  const blocks: number[] = [];
  bucket.slots.forEach((slot, i) => {
    const { copy, transposed, size, start } = slot;
    const at = i * SEGMENT_BYTES;
    segments.setBigInt64(at, BigInt(start), true);
    segments.setBigUint64(at + 8, BigInt(copy ? addressOf(copy) : 0), true);
    segments.setBigUint64(at + 16, BigInt(transposed ? addressOf(transposed) : 0), true);
    const columns = slot.shape.at(-1) ?? 1;
    segments.setInt32(at + 24, size, true);
    segments.setInt32(at + 28, columns, true);
    segments.setInt32(at + 32, copy && copy.cols === columns ? copy.ld : columns, true);
    segments.setInt32(at + 36, slot.shape[0] ?? 1, true);
    segments.setFloat32(at + 40, copy?.factor ?? 1, true);
    segments.setFloat32(at + 44, slot.hasGradient ? (rates[slot.name] ?? 1) : 0, true);
    for (let first = 0; first < size; first += BLOCK) blocks.push(i, first);
  });
  const upload = (data: ArrayBufferView): number => {
    const address = allocateDevice(device, data.byteLength, "optimizer tables");
    writeDevice(device, address, data);
    return address;
  };
  const old = bucket.tables;
  if (old) for (const address of [old.segments, old.blocks]) freeDevice(device, address);
  return {
    segments: upload(segments),
    blocks: upload(Int32Array.from(blocks)),
    count: blocks.length / 2,
  };
}
