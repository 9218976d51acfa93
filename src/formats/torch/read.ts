import { LorikeetError } from "../../errors.ts";
import { BYTES, type DType } from "../../tensor/dtype.ts";
import { sameShape, type Shape, sizeOf, stridesOf } from "../../tensor/shape.ts";
import { type Tensor, tensor } from "../../tensor/tensor.ts";
import { type ByteSource, truncated } from "../byte-source.ts";
import { faultsError, quoteName } from "../faults.ts";
import { tensorFromBytes } from "../tensor-bytes.ts";
import { PickleGlobal, unpickle, unsafe } from "./pickle.ts";
import { readZipDirectory, type ZipEntry, zipDataOffset } from "./zip.ts";

/** A tensor in a file of `torch.save`: a view with `strides` (in elements) of stored bytes. */
export interface TorchTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly strides: readonly number[];
  /** Of the first element, in the file. */
  readonly offset: number;
  /** From the first to the last element, in bytes. */
  readonly length: number;
  /** Whether the bytes are the tensor's values one after another. */
  readonly isContiguous: boolean;
}

const STORAGES: ReadonlyMap<string, DType> = new Map([
  ["torch.DoubleStorage", "f64"],
  ["torch.FloatStorage", "f32"],
  ["torch.HalfStorage", "f16"],
  ["torch.BFloat16Storage", "bf16"],
  ["torch.LongStorage", "i64"],
  ["torch.IntStorage", "i32"],
  ["torch.ShortStorage", "i16"],
  ["torch.CharStorage", "i8"],
  ["torch.ByteStorage", "u8"],
  ["torch.BoolStorage", "bool"],
]);
const CALLS = new Set(["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"]); // prettier-ignore

/** Stored elements, by their key in the archive. */
class Storage {
  readonly dtype: DType;
  readonly key: string;
  readonly size: number;
  constructor(dtype: DType, key: string, size: number) {
    this.dtype = dtype;
    this.key = key;
    this.size = size;
  }
}

/** A view of stored elements. */
class View {
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  constructor(
    storage: Storage,
    offset: number,
    shape: readonly number[],
    strides: readonly number[],
  ) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

/**
 * Tensors of a PyTorch state dict (`.bin`, `.pt`; also inside `{"state_dict": …}`). Nothing in the file is executed:
 * only dicts and tensors of ten dtypes are understood. https://pytorch.org/docs/stable/notes/serialization.html
 * @throws LorikeetError `unsafe-pickle` naming what the file would call; `corrupt-pickle`, `corrupt-zip`,
 * `truncated-file`, `unsupported-torch-file`
 */
export async function readTorch(source: ByteSource): Promise<TorchTensor[]> {
  await refuseOldFormat(source);
  const entries = await readZipDirectory(source);
  const pickle = [...entries.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined) throw notTorch(source, "it has no data.pkl");
  const folder = pickle.slice(0, -"data.pkl".length);
  if ((await readEntry(source, entries.get(`${folder}byteorder`))) === "big")
    throw notTorch(source, "it was written on a big-endian machine");
  const start = await zipDataOffset(source, entries.get(pickle)!);
  const bytes = await source.read(start, entries.get(pickle)!.length);
  const faults: string[] = [];
  const views = stateDictOf(unpickle(bytes, source.name, rulesFor(source.name)), faults);
  const tensors: TorchTensor[] = [];
  for (const [name, view] of views) {
    const entry = entries.get(`${folder}data/${view.storage.key}`);
    const fault = faultOf(view, entry);
    if (fault !== undefined) faults.push(`tensor ${quoteName(name)} ${fault}`);
    else tensors.push(locate(name, view, await zipDataOffset(source, entry!)));
  }
  if (faults.length > 0)
    throw faultsError("corrupt-pickle", `${source.name} to be a state dict`, faults, "Save only the tensors: torch.save(model.state_dict(), …), or safetensors."); // prettier-ignore
  return tensors;
}

/** Values of a tensor that `readTorch` found, in row-major order. @throws LorikeetError `truncated-file` */
export async function readTorchTensor(source: ByteSource, stored: TorchTensor): Promise<Tensor> {
  const { dtype, shape, strides, offset, length, isContiguous } = stored;
  const bytes = await source.read(offset, length);
  if (isContiguous) return tensorFromBytes(dtype, shape, bytes);
  const flat = tensorFromBytes(dtype, [length / BYTES[dtype]], bytes).data;
  const out = tensor(dtype, shape);
  const index = new Array<number>(shape.length).fill(0);
  for (let i = 0, from = 0; i < out.data.length; i++) {
    out.data[i] = flat[from]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

function rulesFor(name: string): Parameters<typeof unpickle>[2] {
  return {
    allows: (global) => CALLS.has(global) || STORAGES.has(global),
    call(global, args) {
      if (global === "collections.OrderedDict") {
        if (args.length > 0) throw corrupt(name, "a dict is made of something else than its items");
        return new Map();
      }
      if (global === "torch._utils._rebuild_parameter") return args[0];
      if (global !== "torch._utils._rebuild_tensor_v2") throw unsafe(name, `a call of ${global}`);
      const [storage, offset, shape, strides] = args;
      if (storage instanceof Storage && isCount(offset) && isCounts(shape) && isCounts(strides))
        return new View(storage, offset, shape, strides);
      throw corrupt(name, "a tensor has no storage, shape or strides");
    },
    persistent(id) {
      const [kind, type, key, , size] = Array.isArray(id) ? (id as unknown[]) : [];
      const dtype = type instanceof PickleGlobal ? STORAGES.get(type.name) : undefined;
      if (kind === "storage" && dtype && typeof key === "string" && isCount(size))
        return new Storage(dtype, key, size);
      throw corrupt(name, "a persistent id names no storage");
    },
  };
}

/** The tensors of a state dict by name; anything else in it is a fault. */
function stateDictOf(value: unknown, faults: string[]): Map<string, View> {
  const inner = value instanceof Map ? (value.get("state_dict") as unknown) : undefined;
  const dict = inner instanceof Map ? inner : value;
  const views = new Map<string, View>();
  if (!(dict instanceof Map)) faults.push("it holds no dict of tensors");
  else
    for (const [key, entry] of dict as Map<unknown, unknown>) {
      if (typeof key === "string" && entry instanceof View) views.set(key, entry);
      else
        faults.push(
          typeof key === "string" ? `entry ${quoteName(key)} is no tensor` : "a key is no text",
        );
    }
  return views;
}

function faultOf(
  { storage, offset, shape, strides }: View,
  entry: ZipEntry | undefined,
): string | undefined {
  if (!entry) return `has no data (${quoteName(storage.key)} is missing)`;
  if (storage.size * BYTES[storage.dtype] > entry.length)
    return `needs ${storage.size * BYTES[storage.dtype]} bytes, ${entry.length} are stored`;
  if (shape.length !== strides.length)
    return `has ${shape.length} axes and ${strides.length} strides`;
  const size = sizeOf(shape);
  if (size === 0) return undefined;
  if (!(size <= storage.size && offset + spanOf(shape, strides) <= storage.size))
    return `reaches beyond its ${storage.size} stored values`;
  return undefined;
}

/** Elements from the first to the last of a view that has any. */
function spanOf(shape: Shape, strides: readonly number[]): number {
  return 1 + shape.reduce((sum, dim, axis) => sum + (dim - 1) * strides[axis]!, 0);
}

function locate(
  name: string,
  { storage, offset, shape, strides }: View,
  start: number,
): TorchTensor {
  const { dtype } = storage;
  const size = sizeOf(shape);
  const matters = shape.map((dim) => dim > 1);
  const relevant = (values: readonly number[]): number[] =>
    values.filter((_, axis) => matters[axis]);
  const isContiguous = size === 0 || sameShape(relevant(strides), relevant(stridesOf(shape)));
  const length = size === 0 ? 0 : spanOf(shape, strides) * BYTES[dtype];
  return {
    name,
    dtype,
    shape,
    strides,
    offset: start + offset * BYTES[dtype],
    length,
    isContiguous,
  };
}

async function refuseOldFormat(source: ByteSource): Promise<void> {
  if (source.size < 22) throw truncated(source.name, 22, source.size);
  const [first, second] = await source.read(0, 2);
  if (first === 0x80 && second === 2)
    throw notTorch(source, "it has the format of PyTorch before 1.6");
}

async function readEntry(source: ByteSource, entry: ZipEntry | undefined): Promise<string> {
  if (!entry || entry.length > 64) return "";
  return new TextDecoder().decode(
    await source.read(await zipDataOffset(source, entry), entry.length),
  );
}

function notTorch(source: ByteSource, fault: string): LorikeetError {
  return new LorikeetError(
    "unsupported-torch-file",
    `Expected ${source.name} to be a file of torch.save, but ${fault}`,
    {
      hint: "Load it in Python and save it as safetensors.",
    },
  );
}

function corrupt(name: string, fault: string): LorikeetError {
  return new LorikeetError(
    "corrupt-pickle",
    `Expected ${name} to be a pickle of tensors, but ${fault}`,
    { hint: "Download it again, or save the state dict alone, better as safetensors." },
  );
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(isCount);
}
