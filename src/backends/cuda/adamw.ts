/** @file AdamW over all trainable parameters as one captured graph: gradient norm, clipping, update, copies. */
import type { AdamWStep } from "../backend.ts";
import type { GradientSum } from "./communicator.ts";
import { allocateDevice, type CapturedGraph, capture, type Device, freeDevice } from "./device.ts";
import type { Module } from "./kernels.ts";
import { allocatePinned, writeDevice } from "./memory.ts";
import { type Bucket, launchCopies, type Store } from "./parameter-buckets.ts";
import { addressOf } from "./plan/value.ts";

const SEGMENT_BYTES = 48;
const BLOCK = 1024;
const NORM_BLOCKS = 512;
/** Bytes of an update's settings; the norm that it finds goes behind them. */
const NORM_AT = 48;

/** Updates of all parameters of a store. */
export interface Updater {
  /** Brings copies and launch tables up to date. */
  refresh(): void;
  /** One step; gives the norm of all gradients before clipping. */
  update(step: AdamWStep): Promise<{ gradNorm: number }>;
}

/** AdamW over all buckets as one captured graph. */
export function openUpdater(store: Store, module: Module, sum: GradientSum): Updater {
  const { device, buckets } = store;
  const kernels = {
    squares: module.kernel("square_sums", "ppl"),
    norm: module.kernel("gradient_norm", "pppi"),
    adamw: module.kernel("adamw", "pppppppp"),
  };
  const hyper = allocateDevice(device, 64, "optimizer settings");
  const norm = hyper + NORM_AT;
  const pinned = allocatePinned(device, 64);
  const settings = new Float32Array(pinned.buffer);
  let sums = 0;
  let graph: CapturedGraph | undefined;
  let scales = "";

  function refresh(): void {
    for (const bucket of buckets) {
      bucket.tables = tablesOf(device, bucket, scales);
      launchCopies(store, bucket);
    }
    graph?.dispose();
    graph = undefined;
    if (sums !== 0) freeDevice(device, sums);
    sums = allocateDevice(device, NORM_BLOCKS * 4 * buckets.length, "gradient norms");
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
    await sum.addUp();
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
