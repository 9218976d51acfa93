/** @file Frozen weights on the GPU: placed when a plan first names them, read from their source straight to the device. */
import { closeSync, openSync, readSync } from "node:fs";
import { LorikeetError } from "../../errors.ts";
import { convert } from "../../tensor/convert.ts";
import { BYTES, type DType } from "../../tensor/dtype.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import type { WeightSource } from "../backend.ts";
import { allocateDevice, type Device, freeDevice } from "./device.ts";
import { type Kernel, loadModule } from "./kernels.ts";
import { allocatePinned, fillZero } from "./memory.ts";
import {
  isQuantizable,
  openQuantizer,
  type Quantization,
  type QuantizedWeight,
  type Quantizer,
} from "./quantize.ts";
import { addressOf, newValue, STORAGE_BYTES, type Storage, type Value } from "./plan/value.ts";

/** Weights below each other as one matrix, with room for adapters at its right and bottom. */
export interface WeightBlock {
  readonly names: readonly string[];
  /** The matrix with its border, when it is kept as it is. */
  readonly matrix: Value | undefined;
  /** Writes the weights into such a matrix, when they are kept quantized. */
  decode(target: Value): void;
  /** Where adapter copies live: rows of A (border, columns), columns of B (rows, border). */
  readonly a: Value;
  readonly b: Value;
  /** Elements from row to row of the matrix. */
  readonly ld: number;
  /** Rows and columns of the weights alone. */
  readonly rows: number;
  readonly columns: number;
  /** Adapter columns (and rows) beside them. */
  readonly border: number;
}

export interface WeightStore {
  /** Where the frozen weight is, in `storage`; the first plan that names it decides. */
  place(name: string, shape: Shape, storage: Storage): Value;
  /** Whether blocks of this weight are kept quantized. */
  isQuantized(name: string, shape: Shape): boolean;
  /** Places weights that are not placed yet as one block, or finds the block that they are; undefined when they lie apart. */
  placeBlock(
    names: readonly string[],
    shapes: readonly Shape[],
    storage: Storage,
    border: number,
  ): WeightBlock | undefined;
  /** Reads every placed weight that is not on the device yet. */
  load(): Promise<void>;
  readonly bytes: number;
  /** Weights are quantized: memory matters more than time. */
  readonly isLean: boolean;
}

const STAGING = 64 << 20;

function storageOf(blocks: ReadonlyMap<string, WeightBlock>, name: string): Storage {
  return [...blocks.values()].find(({ names }) => names.includes(name))!.a.storage;
}

/** Loads a weight in float32 and encodes it. */
async function quantizeWeight(
  loader: Loader,
  source: WeightSource,
  name: string,
  quantizer: Quantizer,
): Promise<QuantizedWeight> {
  const [rows, columns] = source.get(name).shape as [number, number];
  const value = newValue([rows, columns], "f32");
  value.region = {
    bytes: value.region.bytes,
    address: allocateDevice(loader.device, value.region.bytes, `quantizing ${name}`),
    isPlanned: false,
  };
  await loadWeight(loader, source, name, value);
  const weight = quantizer.encode(value.region.address, rows, columns);
  freeDevice(loader.device, value.region.address);
  return weight;
}

/** Weights that quantization leaves alone, as bitsandbytes does: embeddings and output heads. */
const FULL = /(^|\.)(lm_head|embed_tokens|embed_out|wte|wpe|score|classifier)\./;

export function weightStore(
  device: Device,
  source: WeightSource,
  quantization?: Quantization,
): WeightStore {
  const placed = new Map<string, Value>();
  const blocks = new Map<string, WeightBlock>();
  const missing = new Set<string>();
  const coded = new Map<string, QuantizedWeight | undefined>();
  let quantizer: Quantizer | undefined;
  let bytes = 0;

  const allocate = (size: number, what: string): number => {
    bytes += size;
    return allocateDevice(device, size, what);
  };

  return {
    isLean: quantization !== undefined,
    get bytes() {
      return bytes;
    },
    place(name, shape, storage) {
      const known = placed.get(name);
      if (known) return known;
      const value = newValue(shape, storage);
      value.region = {
        bytes: value.region.bytes,
        address: allocate(value.region.bytes, name),
        isPlanned: false,
      };
      placed.set(name, value);
      missing.add(name);
      return value;
    },
    isQuantized: (name, [rows = 0, columns = 0]) =>
      quantization !== undefined && !FULL.test(name) && isQuantizable(rows, columns),
    placeBlock(names, shapes, storage, border) {
      const key = names.join("\n");
      const known = blocks.get(key);
      if (known) return known.border >= border ? known : undefined;
      const isCoded = names.every((name, i) => this.isQuantized(name, shapes[i]!));
      if (names.some((name) => placed.has(name) || coded.has(name))) return undefined;
      if (!isCoded && names.some((name, i) => this.isQuantized(name, shapes[i]!))) return undefined;
      const columns = shapes[0]![1]!;
      const rows = shapes.reduce((sum, shape) => sum + shape[0]!, 0);
      const ld = columns + border;
      const fixed = (shape: Shape, what: string): Value => {
        const value = newValue(shape, storage);
        value.region = {
          bytes: value.region.bytes,
          address: allocate(value.region.bytes, what),
          isPlanned: false,
        };
        if (border > 0) fillZero(device, value.region.address, value.region.bytes);
        return value;
      };
      const matrix = isCoded
        ? undefined
        : { ...fixed([rows + border, ld], names[0]!), cols: ld, ld };
      const part = (value: Value, shape: Shape, offset: number): Value => ({
        ...value,
        shape,
        size: sizeOf(shape),
        offset,
        cols: shape[1]!,
        ld,
      });
      let row = 0;
      for (const [i, name] of names.entries()) {
        const shape = shapes[i]!;
        if (matrix) {
          placed.set(name, part(matrix, shape, row * ld));
          missing.add(name);
        } else coded.set(name, undefined);
        row += shape[0]!;
      }
      const block: WeightBlock = {
        ...{ names, matrix, ld, rows, columns, border },
        a: matrix
          ? part(matrix, [border, columns], rows * ld)
          : fixed([border, columns], "adapters"),
        b: matrix ? part(matrix, [rows, border], columns) : fixed([rows, border], "adapters"),
        decode(target) {
          let first = 0;
          for (const [i, name] of names.entries()) {
            coded.get(name)!.decode({ ...target, offset: target.offset + first * target.ld });
            first += shapes[i]![0]!;
          }
        },
      };
      blocks.set(key, block);
      return block;
    },
    async load() {
      const uncoded = [...coded].filter(([, weight]) => !weight).map(([name]) => name);
      if (missing.size + uncoded.length === 0) return;
      const loader = openLoader(device);
      try {
        for (const name of missing) await loadWeight(loader, source, name, placed.get(name)!);
        for (const name of uncoded) {
          quantizer ??= openQuantizer(device, quantization!, storageOf(blocks, name));
          const weight = await quantizeWeight(loader, source, name, quantizer);
          bytes += weight.bytes;
          coded.set(name, weight);
        }
      } finally {
        loader.dispose();
      }
      missing.clear();
    },
  };
}

/** Staging memory on both sides; copies on the device overlap with reading the next piece. */
interface Loader {
  readonly device: Device;
  /** Sends `bytes` of pinned staging memory that `fill` writes, converts them to rows of `to` from `row` on. */
  send(
    dtype: DType,
    to: Value,
    first: number,
    count: number,
    fill: (target: Uint8Array) => void,
  ): void;
  dispose(): void;
}

const convertible: Partial<Record<DType, Storage>> = { f32: "f32", bf16: "bf16", f16: "f16" };

function openLoader(device: Device): Loader {
  const { call } = device.driver;
  const pinned = allocatePinned(device, STAGING);
  const staging = allocateDevice(device, STAGING, "loading weights");
  const kernels = new Map<string, Kernel>();
  const kernelOf = (from: Storage, to: Storage): Kernel => {
    const key = `${from} ${to}`;
    if (!kernels.has(key))
      kernels.set(
        key,
        loadModule(device, ["rows"], { S: from, T: to }).kernel("convert_rows", "ppiiiif"),
      );
    return kernels.get(key)!;
  };
  return {
    device,
    send(dtype, to, first, count, fill) {
      const from = convertible[dtype]!;
      call.cuStreamSynchronize(device.stream);
      fill(new Uint8Array(pinned.buffer, 0, count * BYTES[dtype]));
      const columns = Math.min(to.cols, to.size);
      const target =
        addressOf(to) +
        Math.floor(first / columns) * Math.min(to.ld, to.size) * STORAGE_BYTES[to.storage];
      if (from === to.storage && to.ld === to.cols) {
        call.cuMemcpyHtoDAsync_v2(
          addressOf(to) + first * BYTES[dtype],
          pinned.address,
          count * BYTES[dtype],
          device.stream,
        );
        return;
      }
      call.cuMemcpyHtoDAsync_v2(staging, pinned.address, count * BYTES[dtype], device.stream);
      const isRows = to.ld !== to.cols;
      const [rows, width] = isRows ? [count / columns, columns] : [1, count];
      const at = isRows ? target : addressOf(to) + first * STORAGE_BYTES[to.storage];
      const grid = Math.min(4096, Math.ceil(count / 256));
      kernelOf(from, to.storage).launch([grid], 256, [
        staging,
        at,
        rows,
        width,
        width,
        isRows ? to.ld : width,
        1,
      ]);
    },
    dispose() {
      call.cuStreamSynchronize(device.stream);
      freeDevice(device, staging);
      pinned.dispose();
    },
  };
}

async function loadWeight(
  loader: Loader,
  source: WeightSource,
  name: string,
  to: Value,
): Promise<void> {
  const weight = source.get(name);
  if (sizeOf(weight.shape) !== to.size)
    throw new LorikeetError(
      "shape",
      `Expected ${name} of shape [${to.shape.join(", ")}], got [${weight.shape.join(", ")}]`,
    );
  const { bytes } = weight;
  if (bytes.kind === "file" && convertible[weight.dtype]) {
    const file = openSync(bytes.path, "r");
    try {
      sendPieces(loader, weight.dtype, to, (target, offset) => {
        readSync(file, target, 0, target.length, bytes.offset + offset);
      });
    } finally {
      closeSync(file);
    }
    return;
  }
  const read = await source.read(name);
  const value = convertible[read.dtype] ? read : convert(read, "f32");
  const raw = new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
  sendPieces(loader, value.dtype, to, (target, offset) => {
    target.set(raw.subarray(offset, offset + target.length));
  });
}

/** Sends a weight in pieces of whole rows that fit the staging memory. */
function sendPieces(
  loader: Loader,
  dtype: DType,
  to: Value,
  fill: (target: Uint8Array, offset: number) => void,
): void {
  const columns = to.ld === to.cols ? 1 : to.cols;
  const piece = Math.max(1, Math.floor(STAGING / BYTES[dtype] / columns)) * columns;
  for (let first = 0; first < to.size; first += piece) {
    const count = Math.min(piece, to.size - first);
    loader.send(dtype, to, first, count, (target) => {
      fill(target, first * BYTES[dtype]);
    });
  }
}
