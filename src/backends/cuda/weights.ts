/** @file Frozen weights on the GPU: placed when a plan first names them, read from their source straight to the device. */
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import type { WeightSource } from "../backend.ts";
import { allocateDevice, type Device, freeDevice } from "./device.ts";
import { fillZero } from "./memory.ts";
import { checkFp8, type Fp8Weight, isFp8Suited, openFp8 } from "./quantize-fp8.ts";
import {
  isQuantizable,
  openQuantizer,
  type Quantization,
  type QuantizedWeight,
} from "./quantize.ts";
import { newValue, type Storage, type Value } from "./plan/value.ts";
import { type Loader, loadWeight, openLoader } from "./weight-loader.ts";

/** Weights below each other as one matrix, with room for adapters at its right and bottom. */
export interface WeightBlock {
  readonly names: readonly string[];
  /** The matrix with its border, when it is kept as it is. */
  readonly matrix: Value | undefined;
  /** The matrix in 8-bit floats, when it is kept so; known once it is loaded. */
  readonly fp8: (() => Fp8Weight) | undefined;
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

/** A block to place: its weights, how they are stored, and columns for adapters. */
export interface BlockSpec {
  readonly names: readonly string[];
  readonly shapes: readonly Shape[];
  readonly storage: Storage;
  readonly border: number;
}

export interface WeightStore {
  /** Where the frozen weight is, in `storage`; the first plan that names it decides. */
  place(name: string, shape: Shape, storage: Storage): Value;
  /** Whether blocks of this weight are kept quantized. */
  isQuantized(name: string, shape: Shape): boolean;
  /** Places weights that are not placed yet as one block, or finds the block that they are; undefined when they lie apart. */
  placeBlock(spec: BlockSpec): WeightBlock | undefined;
  /** Reads every placed weight that is not on the device yet. */
  load(): Promise<void>;
  readonly bytes: number;
  /** Weights are quantized to save memory: it matters more than time. */
  readonly isLean: boolean;
}

/** Weights that quantization leaves alone, as bitsandbytes does: embeddings and output heads. */
const FULL = /(^|\.)(lm_head|embed_tokens|embed_out|wte|wpe|score|classifier)\./;

/** What a store knows of its weights. */
interface Store {
  readonly device: Device;
  readonly source: WeightSource;
  readonly quantization: Quantization | undefined;
  readonly placed: Map<string, Value>;
  /** Blocks by the names of their weights. */
  readonly blocks: Map<string, WeightBlock>;
  /** Weights that are placed and not loaded. */
  readonly missing: Set<string>;
  /** Weights of quantized blocks, by name; of blocks in fp8, by the block's names. Undefined until loaded. */
  readonly coded: Map<string, QuantizedWeight | undefined>;
  readonly eights: Map<string, Fp8Weight | undefined>;
  bytes: number;
}

export function weightStore(
  device: Device,
  source: WeightSource,
  quantization?: Quantization,
): WeightStore {
  if (quantization === "fp8") checkFp8(device);
  const store: Store = {
    ...{ device, source, quantization, bytes: 0 },
    ...{ placed: new Map(), blocks: new Map(), missing: new Set() },
    ...{ coded: new Map(), eights: new Map() },
  };
  return {
    isLean: quantization !== undefined && quantization !== "fp8",
    get bytes() {
      return store.bytes;
    },
    place(name, shape, storage) {
      const known = store.placed.get(name);
      if (known) return known;
      const value = allocateValue(store, shape, storage, name);
      store.placed.set(name, value);
      store.missing.add(name);
      return value;
    },
    isQuantized: (name, shape) => isQuantized(store, name, shape),
    placeBlock: (spec) => placeBlock(store, spec),
    load: () => load(store),
  };
}

function allocateValue(store: Store, shape: Shape, storage: Storage, what: string): Value {
  const value = newValue(shape, storage);
  const { bytes } = value.region;
  const address = allocateDevice(store.device, bytes, what);
  store.bytes += bytes;
  value.region = { bytes, address, isPlanned: false };
  return value;
}

function isQuantized(
  { quantization }: Store,
  name: string,
  [rows = 0, columns = 0]: Shape,
): boolean {
  if (quantization === undefined || FULL.test(name)) return false;
  return quantization === "fp8" ? isFp8Suited(rows, columns) : isQuantizable(rows, columns);
}

function placeBlock(store: Store, spec: BlockSpec): WeightBlock | undefined {
  const { names, shapes, border } = spec;
  const key = names.join("\n");
  const known = store.blocks.get(key);
  if (known) return known.border >= border ? known : undefined;
  if (names.some((name) => store.placed.has(name) || store.coded.has(name))) return undefined;
  const coded = names.filter((name, i) => isQuantized(store, name, shapes[i]!));
  if (coded.length > 0 && coded.length < names.length) return undefined;
  const block = coded.length > 0 ? codedBlock(store, spec, key) : plainBlock(store, spec);
  store.blocks.set(key, block);
  return block;
}

function sizesOf({ shapes, border }: BlockSpec): { rows: number; columns: number; ld: number } {
  const columns = shapes[0]![1]!;
  const rows = shapes.reduce((sum, shape) => sum + shape[0]!, 0);
  return { rows, columns, ld: columns + border };
}

/** Memory for a part of a block; with a border it begins as zeros. */
function fixed(store: Store, spec: BlockSpec, shape: Shape, what: string): Value {
  const value = allocateValue(store, shape, spec.storage, what);
  if (spec.border > 0) fillZero(store.device, value.region.address, value.region.bytes);
  return value;
}

function plainBlock(store: Store, spec: BlockSpec): WeightBlock {
  const { names, shapes, border } = spec;
  const { rows, columns, ld } = sizesOf(spec);
  const matrix = { ...fixed(store, spec, [rows + border, ld], names[0]!), cols: ld, ld };
  const part = (shape: Shape, offset: number): Value => ({
    ...{ ...matrix, shape, size: sizeOf(shape), offset, cols: shape[1]!, ld },
  });
  let row = 0;
  for (const [i, name] of names.entries()) {
    store.placed.set(name, part(shapes[i]!, row * ld));
    store.missing.add(name);
    row += shapes[i]![0]!;
  }
  return {
    ...{ names, matrix, ld, rows, columns, border, fp8: undefined },
    a: part([border, columns], rows * ld),
    b: part([rows, border], columns),
    decode: () => undefined,
  };
}

function codedBlock(store: Store, spec: BlockSpec, key: string): WeightBlock {
  const { names, shapes, border } = spec;
  const { rows, columns, ld } = sizesOf(spec);
  const isEight = store.quantization === "fp8";
  if (isEight) store.eights.set(key, undefined);
  for (const name of names) store.coded.set(name, undefined);
  return {
    ...{ names, matrix: undefined, ld, rows, columns, border },
    fp8: isEight ? () => store.eights.get(key)! : undefined,
    a: fixed(store, spec, [border, columns], "adapters"),
    b: fixed(store, spec, [rows, border], "adapters"),
    decode(target) {
      if (isEight) {
        store.eights.get(key)!.decode(target);
        return;
      }
      let first = 0;
      for (const [i, name] of names.entries()) {
        const offset = target.offset + first * target.ld;
        store.coded.get(name)!.decode({ ...target, offset });
        first += shapes[i]![0]!;
      }
    },
  };
}

async function load(store: Store): Promise<void> {
  const { device, source, missing, placed } = store;
  const uncoded = [...store.blocks.values()].filter(
    ({ matrix, names }) => !matrix && !isLoaded(store, names),
  );
  if (missing.size + uncoded.length === 0) return;
  const loader = openLoader(device);
  try {
    for (const name of missing) await loadWeight(loader, source, name, placed.get(name)!);
    for (const block of uncoded)
      await (block.fp8 ? encodeTogether(store, loader, block) : encodeEach(store, loader, block));
  } finally {
    loader.dispose();
  }
  missing.clear();
}

function isLoaded({ coded, eights }: Store, names: readonly string[]): boolean {
  return eights.get(names.join("\n")) !== undefined || coded.get(names[0]!) !== undefined;
}

/** Encodes the weights of a block one by one. */
async function encodeEach(store: Store, loader: Loader, { names, a }: WeightBlock): Promise<void> {
  const quantizer = openQuantizer(store.device, store.quantization as "nf4" | "int8", a.storage);
  for (const name of names) {
    const [rows, columns] = store.source.get(name).shape as [number, number];
    const weight = await withFloats(store, loader, [name], (at) =>
      quantizer.encode(at, rows, columns),
    );
    store.bytes += weight.bytes;
    store.coded.set(name, weight);
  }
}

/** Encodes a block as one matrix, as its transpose has factors that its weights share. */
async function encodeTogether(store: Store, loader: Loader, block: WeightBlock): Promise<void> {
  const { names, rows, columns, a } = block;
  const encoder = openFp8(store.device, a.storage);
  const weight = await withFloats(store, loader, names, (at) => encoder.encode(at, rows, columns));
  store.bytes += weight.bytes;
  store.eights.set(names.join("\n"), weight);
}

/** Loads weights one after another in float32 for as long as `use` runs. */
async function withFloats<T>(
  { device, source }: Store,
  loader: Loader,
  names: readonly string[],
  use: (address: number) => T,
): Promise<T> {
  const values = names.map((name) => newValue(source.get(name).shape, "f32"));
  const total = values.reduce((sum, { region }) => sum + region.bytes, 0);
  const start = allocateDevice(device, total, `quantizing ${names[0]!}`);
  let address = start;
  for (const [i, value] of values.entries()) {
    const { bytes } = value.region;
    value.region = { bytes, address, isPlanned: false };
    address += bytes;
    await loadWeight(loader, source, names[i]!, value);
  }
  const result = use(start);
  freeDevice(device, start);
  return result;
}
